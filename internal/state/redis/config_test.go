package redis

import (
	"fmt"
	"strings"
	"testing"
)

func TestURLs(t *testing.T) {
	for text, want := range map[string]string{
		"redis://redis.example.com":                                      "[redis.example.com:6379] db 0",
		"redis://redis.example.com:7000/3":                               "[redis.example.com:7000] db 3",
		"redis://redis.example.com?db=4":                                 "[redis.example.com:6379] db 4",
		"rediss://u:p%40ss@[2001:db8::1]:7000":                           "[[2001:db8::1]:7000] db 0 tls u p@ss",
		"unix:///run/redis.sock?db=2":                                    "[/run/redis.sock] db 2 socket",
		"unix://:pw@/run/redis.sock":                                     "[/run/redis.sock] db 0 socket  pw",
		"redis://a.example.com?cluster=true":                             "[a.example.com:6379] db 0 cluster",
		"redis://a.example.com?addr=b.example.com:1&addr=c":              "[a.example.com:6379 b.example.com:1 c:6379] db 0 cluster",
		"redis://a:26379?addr=b:26379&master_name=m&sentinel_password=x": "[a:26379 b:26379] db 0 m x",
	} {
		got, err := parseURL(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		s := fmt.Sprint(got.addresses, " db ", got.db)
		for word, on := range map[string]bool{" tls": got.tls, " socket": got.socket, " cluster": got.cluster} {
			if on {
				s += word
			}
		}
		if got.username+got.password != "" {
			s += " " + got.username + " " + got.password
		}
		if got.master != "" {
			s += " " + got.master + " " + got.sentinelPassword
		}
		if s != want {
			t.Errorf("%s: %s; want %s", text, s, want)
		}
	}
	for _, text := range []string{"", "redis", "redis:planted", "http://planted", "redis://", "redis://:6379", "redis://planted:0", "redis://planted:x",
		"redis://planted:70000", "redis://planted/x", "redis://planted/-1", "redis://planted?planted=1", "redis://planted?cluster=perhaps",
		"redis://planted?cluster=1&cluster=1", "redis://planted/1?cluster=true", "redis://a?master_name=planted&cluster=true", "unix://planted/sock",
		"unix:///", "unix:///planted?cluster=true", "redis://planted#planted", "redis://planted?sentinel_password=planted", "redis://p:%0aplanted@h",
		"redis://planted:%zz@h", "redis://planted?addr=", "redis://planted?db=%zz", "redis://h?addr=a/planted"} {
		err := CheckURL(text)
		if err == nil || strings.Contains(err.Error(), "planted") && strings.Contains(text, "planted") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzURL(f *testing.F) {
	for _, s := range []string{"redis://u:p@h:1/2?addr=b", "unix:///s?db=1", "rediss://[::1]", "redis://a?master_name=m"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseURL(text)
		if err != nil {
			return
		}
		if len(got.addresses) == 0 || got.db < 0 {
			t.Errorf("%q: %+v", text, got)
		}
	})
}

// However a stream of replies is cut, it is followed to the same end; what is announced beyond the bounds is never waited for.
func FuzzFrames(f *testing.F) {
	for _, s := range []string{"+OK\r\n", "$3\r\nabc\r\n:1\r\n", "*2\r\n$-1\r\n*1\r\n:5\r\n", "*-1\r\n", "$99999999999\r\n", "*65537\r\n", "%1\r\n",
		"-ERR x\r\n+a\r\n", "$0\r\n\r\n", "*0\r\n", "$33554432\r\nabc"} {
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, data []byte, cut uint8) {
		var whole, parts frames
		errWhole := whole.feed(data)
		var errParts error
		for rest := data; len(rest) > 0 && errParts == nil; {
			n := min(len(rest), 1+int(cut))
			errParts = parts.feed(rest[:n])
			rest = rest[n:]
		}
		if (errWhole == nil) != (errParts == nil) {
			t.Fatalf("as a whole %v, in parts %v", errWhole, errParts)
		}
		if errWhole == nil && (whole.skip != parts.skip || whole.length != parts.length || len(whole.open) != len(parts.open)) {
			t.Fatalf("as a whole %+v, in parts %+v", whole, parts)
		}
		if whole.skip > maxBulk+2 || len(whole.open) > maxDepth {
			t.Fatalf("%+v", whole)
		}
	})
}

func TestFrames(t *testing.T) {
	for text, want := range map[string]bool{
		"+OK\r\n": true, "-ERR x\r\n": true, ":5\r\n": true, "$3\r\na\nb\r\n": true, "$-1\r\n": true, "*-1\r\n": true, "*0\r\n": true,
		"*2\r\n*1\r\n:1\r\n$1\r\nx\r\n+OK\r\n": true,
		"%1\r\n+a\r\n=5\r\ntxt:a\r\n":          true, "~2\r\n_\r\n#t\r\n>1\r\n,1.5\r\n(99999999999999999999\r\n": true, "%0\r\n": true,
		"%32769\r\n": false, "|1\r\n": false, "$?\r\n": false, "!33554433\r\n": false, ">65537\r\n": false,
		"$33554433\r\n": false, "*65537\r\n": false, "$\r\n": false, "*x\r\n": false, "$-2\r\n": false, "\r\n": false,
		"x\r\n": false, "$99999999999999999999999\r\n": false,
	} {
		var f frames
		err := f.feed([]byte(text))
		if (err == nil) != want {
			t.Errorf("%q: %v", text, err)
		}
		if err == nil && (f.skip != 0 || f.length != 0 || len(f.open) != 0 || f.size != 0) {
			t.Errorf("%q is not over: %+v", text, f)
		}
	}
}
