//go:build !unix

package descriptor

import "net"

// Limit is how many descriptors the process may have; 0: nobody says.
func Limit() int { return 0 }

// waiting tells whether a client may wait in a listener's queue: here nobody says.
func waiting(net.Listener) bool { return true }
