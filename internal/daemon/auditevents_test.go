package daemon

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"httpowerd/internal/proxy/audit"
)

// TestCACreationIsRecorded: the trail says when the CA was made, once, and a trail with checkpoints that a daemon leaves verifies to its end.
func TestCACreationIsRecorded(t *testing.T) {
	b := start(t, "audit: {checkpoint: {every: 1s}}")
	for range 2 {
		if _, err := b.CA(); err != nil {
			t.Fatal(err)
		}
	}
	b.stop()
	text, err := os.ReadFile(b.audit)
	if err != nil {
		t.Fatal(err)
	}
	made := regexp.MustCompile(`"kind":"lifecycle","event":"ca_created","subject":"[^"]+","sha256":"([0-9A-F]{2} ){31}[0-9A-F]{2}","not_after":"2`)
	if n := len(made.FindAll(text, -1)); n != 1 {
		t.Errorf("%d records of it in %s", n, text)
	}
	r, err := audit.VerifyFiles(b.audit)
	if err != nil {
		t.Fatal(err)
	}
	if r.Checked.Seq != r.Last.Seq || !strings.Contains(r.String(), "the end was checked") {
		t.Errorf("%s", r)
	}
	if info, err := os.Stat(b.settings.State.Dir + "/audit.key"); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
}
