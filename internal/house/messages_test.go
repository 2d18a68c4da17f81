package house

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"httpowerd/internal/redact"
)

// logged is a message as the daemon's log shows it.
func logged(t *testing.T, message string) string {
	t.Helper()
	var out bytes.Buffer
	slog.New(redact.NewHandler(slog.NewJSONHandler(&out, nil), redact.Default())).Error("failed", "error", message)
	var line struct{ Error string }
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	return line.Error
}

var (
	quotedVerb = regexp.MustCompile(`%[-+# 0-9.*]*q`)
	plainVerb  = regexp.MustCompile(`%[-+# 0-9.*]*[a-zA-Z]`)
)

// spoken is a format with words in the place of its verbs.
func spoken(format string) string {
	format = plainVerb.ReplaceAllString(quotedVerb.ReplaceAllString(format, `"word"`), "word")
	return strings.ReplaceAll(format, "%%", "%")
}

// textOf is the text of a literal, "" of anything else.
func textOf(e ast.Expr) string {
	literal, ok := e.(*ast.BasicLit)
	if !ok || literal.Kind != token.STRING {
		return ""
	}
	text, err := strconv.Unquote(literal.Value)
	if err != nil {
		return ""
	}
	return text
}

// noMessages are texts that are configuration.
var noMessages = []string{`, backend: redis, url: "redis://%s", secret: the-same-in-all-daemons, timeout: 500ms, share: 2`}

// messages calls f for each text of a file that may be a message.
func messages(file *ast.File, f func(at token.Pos, text string)) {
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ImportSpec:
			return false
		case *ast.Field:
			n.Tag = nil
		case *ast.CallExpr:
			called, ok := n.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if of, ok := called.X.(*ast.Ident); ok && of.Name == "regexp" {
				return false
			}
			if called.Sel.Name == "Faultf" && len(n.Args) > 1 && textOf(n.Args[0]) != "" && strings.Contains(textOf(n.Args[1]), " ") {
				f(n.Pos(), textOf(n.Args[0])+": "+textOf(n.Args[1])) // a fault stands behind its key
			}
		case *ast.BasicLit:
			if text := textOf(n); strings.Contains(text, " ") {
				f(n.Pos(), text)
			}
		}
		return true
	})
}

// TestMessagesAreNotRedacted: our own words pass the log's redaction unchanged, or a warning would hide what it warns of.
func TestMessagesAreNotRedacted(t *testing.T) {
	seen := 0
	walk(t, ".go", func(path, text string) {
		rel, err := filepath.Rel(root, path)
		if err != nil {
			t.Fatal(err)
		}
		rel = filepath.ToSlash(rel)
		if strings.HasSuffix(rel, "_test.go") || strings.HasPrefix(rel, "internal/redact/") || !strings.HasPrefix(rel, "cmd/") && !strings.HasPrefix(rel, "internal/") {
			return
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		messages(file, func(at token.Pos, text string) {
			seen++
			if own := spoken(text); !slices.Contains(noMessages, text) && logged(t, own) != own {
				t.Errorf("%s:%d: the log makes of %q\n%q", rel, fset.Position(at).Line, text, logged(t, own))
			}
		})
	})
	if seen < 1000 {
		t.Errorf("%d messages", seen)
	}
}
