package redact

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"
)

func seeds(f *testing.F) {
	for _, s := range []string{
		"", "{", `{"password":"x","a":[1,4111111111111111,{"cvv":123}]}`, "password=x&b=%22%7B",
		"http://u:p@h/?a=%2525", "<a><password>x</password><!-- ", "%B4111111111111111^A^2512101?",
		"--B\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\nx\r\n--B--",
		"data: {\"token\":\"x\"}\n\n", "-----BEGIN PRIVATE KEY-----", "Bearer eyJ.", "\\u00224111",
		"Cookie: a=b",
		"\xff\xfe{\x00", "ey" + "JhbGciOiJI.e", `{"a":"\ud800\"\\u0034111111111111111"}`, "9411 1111 1111 1111 1111 11", "[redacted]", "%%%25", "a=[redacted",
	} {
		f.Add(s)
	}
}

// FuzzPlanted: whatever stands around it, a token that stands by itself never shows.
func FuzzPlanted(f *testing.F) {
	seeds(f)
	const core = "4eC39HqLyjWDarjtT1zdp7dc"
	const token = "gh" + "p_" + core
	f.Fuzz(func(t *testing.T, around string) {
		around = strings.ReplaceAll(around, core, "")
		half := len(around) / 2
		text := around[:half] + " " + token + " " + around[half:]
		r := Default()
		for what, out := range map[string]string{
			"text": r.Text(text), "URL": string(r.AppendURL(nil, text, nil)), "body": string(r.Body("", []byte(text), false, nil)),
			"json": string(r.Body("application/json", []byte(text), true, nil)), "form": string(r.Body("application/x-www-form-urlencoded", []byte(text), false, nil)),
			"xml": string(r.Body("text/xml", []byte(text), false, nil)), "multipart": string(r.Body("multipart/form-data; boundary=B", []byte(text), true, nil)),
			"events": string(r.Body("text/event-stream", []byte(text), false, nil)), "stream": through(t, text, func() int { return 3 }),
			"header": r.Header(http.Header{"X-Note": {text}}, nil).Get("X-Note"), "cookie": r.Header(http.Header{"Cookie": {text}}, nil).Get("Cookie"),
			"link": r.Header(http.Header{"Link": {text}}, nil).Get("Link"), "location": r.Header(http.Header{"Location": {text}}, nil).Get("Location"),
		} {
			if strings.Contains(out, core) {
				t.Errorf("%s: %q shows %q", what, text, out)
			}
			if !utf8.ValidString(out) {
				t.Errorf("%s: %q: invalid UTF-8 in %q", what, text, out)
			}
		}
	})
}

// FuzzJSON: valid JSON stays valid, of the same shape, and a second pass changes nothing.
func FuzzJSON(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, text string) {
		data := []byte(text)
		out := Default().Body("application/json", data, false, nil)
		if !utf8.Valid(out) {
			t.Fatalf("%q became invalid UTF-8: %q", text, out)
		}
		if start := bytes.TrimLeft(data, " \t\r\n"); json.Valid(data) && len(start) > 0 && strings.IndexByte(`{["-0123456789`, start[0]) >= 0 && utf8.Valid(data) {
			checkShape(t, data, out)
		}
		if string(data) != text {
			t.Fatal("the input was changed")
		}
	})
}

// FuzzStream: the output does not depend on the pieces, and for a short text it is the same as Text.
func FuzzStream(f *testing.F) {
	f.Add("password=x and more", uint8(3))
	f.Add("ä sk_"+"live_abcdefghijklmnop ä", uint8(1))
	f.Add("\x90", uint8(82)) // no character begins anywhere
	f.Fuzz(func(t *testing.T, text string, size uint8) {
		long := strings.Repeat(text, min(1+40_000/(len(text)+1), 20_000))
		if a, b := through(t, long, func() int { return len(long) }), through(t, long, func() int { return int(size) }); a != b {
			t.Fatalf("%q: %q, %q", text, a, b)
		}
		if a, b := through(t, text, func() int { return int(size) }), Default().Text(text); len(text) < windowSize && a != b {
			t.Fatalf("%q: %q, %q", text, a, b)
		}
	})
}
