package coding

import "testing"

func TestText(t *testing.T) {
	for _, c := range []struct{ kind, in, wantKind, want string }{
		{"application/json; charset=Shift_JIS", "{\"\x95\x5c\":\"\x83\x5c\"}", "application/json", `{"表":"ソ"}`},
		{"text/plain; charset=\"gb18030\"", "\xd6\xd0\x81\x30\x84\x36", "text/plain", "中¥"},
		{"text/xml;charset=iso-8859-1", "caf\xe9", "text/xml", "café"}, {"text/plain; charset=koi8-r; format=flowed", "\xf0", "text/plain; format=flowed", "П"},
		{"text/plain; charset=utf-16le", "a\x00b\x00", "text/plain", "ab"}, {"text/plain; charset=iso-2022-jp", "\x1b$B\x46\x7c\x1b(B1", "text/plain", "日1"},
		{"text/plain; charset=utf-8", "ü", "text/plain; charset=utf-8", "ü"}, {"text/plain", "\xff", "text/plain", "\xff"}, {"charset", "x", "charset", "x"},
	} {
		kind, text, ok := Text(c.kind, []byte(c.in))
		if !ok || kind != c.wantKind || string(text) != c.want {
			t.Errorf("%s: %q %q %v", c.kind, kind, text, ok)
		}
	}
	for _, name := range []string{"utf-7", "ibm037", "utf-32", "nonsense"} {
		if _, text, ok := Text("text/plain; charset="+name, []byte("x")); ok || string(text) != "x" {
			t.Errorf("%s is known: %q", name, text)
		}
	}
}
