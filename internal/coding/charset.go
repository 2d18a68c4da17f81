package coding

import (
	"mime"
	"strings"

	"golang.org/x/text/encoding/htmlindex"
)

// Text is a text in the charset that its Content-Type names, as UTF-8, with the Content-Type that it has then. It reports false for a charset that is not
// known, and leaves everything as it is where none is named, or one that is UTF-8 already.
func Text(contentType string, data []byte) (string, []byte, bool) {
	if !strings.Contains(contentType, "harset") && !strings.Contains(contentType, "HARSET") {
		return contentType, data, true
	}
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return contentType, data, true // it says nothing that anybody goes by
	}
	name := strings.ToLower(strings.TrimSpace(params["charset"]))
	switch name {
	case "", "utf-8", "utf8", "us-ascii", "ascii":
		return contentType, data, true
	}
	enc, err := htmlindex.Get(name)
	if err != nil {
		return contentType, data, false
	}
	text, err := enc.NewDecoder().Bytes(data)
	if err != nil {
		return contentType, data, false
	}
	delete(params, "charset")
	return mime.FormatMediaType(kind, params), text, true
}

// Wide tells whether a charset, by any of its names, is UTF-16.
func Wide(charset string) bool {
	if strings.HasPrefix(charset, "utf-16") || strings.HasPrefix(charset, "utf16") {
		return true
	}
	enc, err := htmlindex.Get(charset)
	if err != nil {
		return false
	}
	name, err := htmlindex.Name(enc)
	return err == nil && strings.HasPrefix(name, "utf-16")
}
