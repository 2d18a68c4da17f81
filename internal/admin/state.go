package admin

import "time"

// StateStatus is how the state stands that daemons share. Errors are shown by their class alone.
type StateStatus struct {
	Backend       string    `json:"backend"`
	Up            bool      `json:"up"`
	Since         time.Time `json:"since,omitzero"`
	LastError     string    `json:"last_error,omitempty"`
	LastErrorTime time.Time `json:"last_error_time,omitzero"`
	OnFailure     string    `json:"on_failure,omitempty"`
	Share         int       `json:"share,omitempty"`
}

// state tells how the state stands that daemons share.
func (h *Handler) state(c *call) *problem { return c.json(h.State()) }
