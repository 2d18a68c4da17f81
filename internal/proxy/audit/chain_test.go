package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
)

// seal is sealBy for a record alone.
func (l link) seal(line []byte, start int) ([]byte, link) {
	return l.sealBy(&digest{Hash: sha256.New()}, line, start)
}

func TestSeal(t *testing.T) {
	line, next := genesis().seal([]byte(`before{"a":1`), len("before"))
	hashed := `{"a":1,"seq":1,"prev":"` + strings.Repeat("0", 64) + `"`
	sum := sha256.Sum256([]byte(hashed))
	want(t, "line", string(line), "before"+hashed+`,"hash":"`+hex.EncodeToString(sum[:])+`"}`)
	want(t, "seq", next.seq, 1)
	second, _ := next.seal([]byte(`{"a":2`), 0)
	wantText(t, "the second record", string(second), `"seq":2,"prev":"`+hex.EncodeToString(sum[:])+`"`)
	got, ok := after(line[len("before"):])
	if !ok || got != next {
		t.Errorf("after: %v %v", got, ok)
	}
}

func TestParseEnding(t *testing.T) {
	good, _ := link{seq: 41, hash: genesis().hash}.seal([]byte(`{"a":1`), 0)
	if e, ok := parseEnding(good); !ok || e.seq != 42 {
		t.Errorf("%v %v", e, ok)
	}
	for _, bad := range []string{
		"", "{}", strings.Repeat("x", 400), string(good[:len(good)-1]), string(good) + " ",
		strings.Replace(string(good), `"seq":42`, `"seq":042`, 1), strings.Replace(string(good), `"seq":42`, `"seq":+42`, 1),
		strings.Replace(string(good), `"seq":42`, `"seq":`, 1), strings.Replace(string(good), `"seq":42`, `"seq":99999999999999999999`, 1),
		strings.Replace(string(good), `"prev":"0`, `"prev":"G`, 1), strings.Replace(string(good), `"prev"`, `"perv"`, 1),
		strings.ToUpper(string(good)),
	} {
		if e, ok := parseEnding([]byte(bad)); ok {
			t.Errorf("%q is read as %v", bad, e)
		}
	}
}

func FuzzParseEnding(f *testing.F) {
	good, _ := genesis().seal([]byte(`{"a":1`), 0)
	f.Add(good)
	f.Add([]byte(`,"seq":1,"prev":"`))
	f.Fuzz(func(t *testing.T, line []byte) {
		state, ok := after(line)
		if !ok {
			return
		}
		e, _ := parseEnding(line)
		again, _ := link{seq: e.seq - 1, hash: e.prev}.seal(append([]byte(nil), line[:strings.LastIndex(string(line), seqKey)]...), 0)
		if string(again) != string(line) || state.seq != e.seq {
			t.Errorf("%q is accepted, but would be written %q", line, again)
		}
	})
}
