package proxy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestLittleOfGoproxy: of goproxy nothing is used but its dispatch. Its CA's key is public, its matchers read what a client wrote, its dialer and its
// interception have no limits and its transport reads the environment (G1, G2, G3, G4, G20, G24, G25, G27,
// G32).
func TestLittleOfGoproxy(t *testing.T) {
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for _, entry := range files {
		name := entry.Name()
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "goproxy" {
					used[n.Sel.Name] = true
				}
			case *ast.KeyValueExpr:
				if key, ok := n.Key.(*ast.Ident); ok && slices.Contains([]string{"Verbose", "KeepHeader", "AllowHTTP2", "ConnectDial", "CertStore"}, key.Name) {
					t.Errorf("%s sets goproxy's %s", name, key.Name)
				}
			}
			return true
		})
	}
	got := slices.Sorted(maps.Keys(used))
	if want := []string{"ConnectAction", "ConnectHijack", "ProxyCtx", "ProxyHttpServer"}; !slices.Equal(got, want) {
		t.Errorf("of goproxy %v are used; want %v", got, want)
	}
}
