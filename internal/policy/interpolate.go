package policy

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"httpowerd/internal/redact"
	"httpowerd/internal/setting"
)

const maxFilledFile = 1 << 20

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// fill replaces ${NAME}, ${NAME:-default} and ${file:PATH} in a scalar; $${ stands for ${. secret is true where the value should not be shown.
func (r *reader) fill(s string, n *node) (text string, secret bool, err error) {
	var b strings.Builder
	for {
		i := strings.Index(s, "${")
		if i < 0 {
			b.WriteString(s)
			return b.String(), secret, nil
		}
		if i > 0 && s[i-1] == '$' {
			b.WriteString(s[:i-1] + "${")
			s = s[i+2:]
			continue
		}
		b.WriteString(s[:i])
		end := strings.IndexByte(s[i:], '}')
		if end < 0 {
			return "", false, errors.New("must close its ${ with a }: write $${ for a literal ${")
		}
		value, hide, err := r.lookup(s[i+2:i+end], n)
		if err != nil {
			return "", false, err
		}
		if b.Len()+len(value) > maxFilledFile {
			return "", false, errors.New("is larger than 1 MiB once its ${…} are filled in")
		}
		b.WriteString(value)
		secret = secret || hide
		s = s[i+end+1:]
	}
}

func (r *reader) lookup(inner string, n *node) (value string, secret bool, err error) {
	if path, ok := strings.CutPrefix(inner, "file:"); ok {
		value, err := r.fillFile(path, n)
		r.filled(value, n)
		return value, true, err
	}
	name, fallback, hasFallback := strings.Cut(inner, ":-")
	if strings.Contains(fallback, "${") {
		return "", false, errors.New("must not hold a ${…} inside another")
	}
	if !variable.MatchString(name) {
		return "", false, errors.New("must not hold a ${…} that is neither ${NAME}, ${NAME:-default} nor ${file:PATH}: write $${ for a literal ${")
	}
	value, set := r.env(name)
	switch {
	case set && (value != "" || !hasFallback):
		r.filled(value, n)
		return value, redact.Default().SensitiveName(name), nil
	case hasFallback:
		return fallback, false, nil
	}
	return "", false, setting.Faultf("", "is filled in from the environment variable %s, which is not set: set it, or write ${%s:-default}", setting.Own(name), setting.Own(name))
}

// filled notes what no message may show of n, whatever it is called. A default stands in the file that the message points to, and is not meant.
func (r *reader) filled(value string, n *node) {
	if value != "" {
		n.filled = append(n.filled, value)
	}
	if len(value) >= leastFilled {
		r.hidden.add(value, false)
	}
}

// fillFile reads a secret that somebody else keeps, such as /run/secrets/x.
func (r *reader) fillFile(path string, n *node) (string, error) {
	if path == "" {
		return "", errors.New("must name a path in its ${file:}")
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(n.at.file), path)
	}
	data, mode, err := r.read(path, maxFilledFile)
	if err != nil {
		return "", setting.Faultf("", "is filled in from %s, which cannot be read: %v", path, setting.Own(err.Error()))
	}
	if mode&0o077 != 0 {
		r.warnings.at(n, "%s can be read by its group or by everybody (mode %04o): chmod 600 it", path, mode)
	}
	text := strings.TrimSuffix(string(data), "\n")
	return strings.TrimSuffix(text, "\r"), nil
}

// readFile reads a regular file of at most limit bytes. It looks before it opens: opening a pipe would wait for its writer.
func readFile(path string, limit int64) ([]byte, fs.FileMode, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, reason(err)
	}
	if !info.Mode().IsRegular() {
		return nil, 0, errors.New("it is not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, reason(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, 0, reason(err)
	}
	if int64(len(data)) > limit {
		return nil, 0, fmt.Errorf("it is larger than %s", setting.Size(limit))
	}
	return data, info.Mode().Perm(), nil
}

// reason is the error without the path that the message names already.
func reason(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
