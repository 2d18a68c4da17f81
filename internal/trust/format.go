package trust

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// Formats are the names that Format knows.
var Formats = []string{"sh", "fish", "powershell", "dotenv", "docker", "k8s", "java"}

// Format writes vars so that the named tool reads them back unchanged:
//
//	sh          export NAME='value'            for eval "$(…)"
//	fish        set -gx NAME 'value'           for … | source
//	powershell  $env:NAME = 'value'            for … | Out-String | Invoke-Expression
//	dotenv      NAME=value, quoted if need be  for .env files
//	docker      -e 'NAME=value' \              the arguments of docker run, quoted for a shell
//	k8s         an env: list in YAML           for a container of a pod
//	java        one -D option a line           for java @FILE, or on a command line
//
// An unknown format, or a value with a line break or a NUL (which no format can hold everywhere), is an error and nothing is written.
func Format(w io.Writer, format string, vars []Var) error {
	var write func([]Var) (string, error)
	switch format {
	case "sh":
		write = lines(func(v Var) string { return "export " + v.Name + "=" + quoteSh(v.Value) })
	case "fish":
		write = lines(func(v Var) string { return "set -gx " + v.Name + " " + quoteFish(v.Value) })
	case "powershell":
		write = lines(func(v Var) string { return "$env:" + v.Name + " = " + quotePowerShell(v.Value) })
	case "dotenv":
		write = lines(func(v Var) string { return v.Name + "=" + quoteDotenv(v.Value) })
	case "docker":
		write = docker
	case "k8s":
		write = kubernetes
	case "java":
		write = java
	default:
		return fmt.Errorf("unknown format %q: write one of %s", format, strings.Join(Formats, ", "))
	}
	for _, v := range vars {
		if !validName.MatchString(v.Name) || strings.ContainsAny(v.Value, "\r\n\x00") {
			return fmt.Errorf("the variable %q cannot be written: its name is none, or its value has a line break", v.Name)
		}
	}
	text, err := write(vars)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, text)
	return err
}

var (
	validName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	plain     = regexp.MustCompile(`^[A-Za-z0-9_./:@%+,=-]*$`)
)

func lines(line func(Var) string) func([]Var) (string, error) {
	return func(vars []Var) (string, error) {
		var b strings.Builder
		for _, v := range vars {
			b.WriteString(line(v) + "\n")
		}
		return b.String(), nil
	}
}

func docker(vars []Var) (string, error) {
	args := make([]string, len(vars))
	for i, v := range vars {
		args[i] = "-e " + quoteSh(v.Name+"="+v.Value)
	}
	return strings.Join(args, " \\\n") + "\n", nil
}

func kubernetes(vars []Var) (string, error) {
	var b strings.Builder
	b.WriteString("env:\n")
	for _, v := range vars {
		// Kubernetes itself fills in $(NAME) and takes a doubled dollar sign for a plain one.
		quoted, err := json.Marshal(strings.ReplaceAll(v.Value, "$", "$$"))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "  - name: %s\n    value: %s\n", v.Name, quoted)
	}
	return b.String(), nil
}

func java(vars []Var) (string, error) {
	var b strings.Builder
	for _, v := range vars {
		if v.Name != "JAVA_TOOL_OPTIONS" {
			continue
		}
		for _, option := range splitJava(v.Value) {
			if !setsProperty(option) {
				continue
			}
			if strings.ContainsAny(option, " \t\"'#") {
				option = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(option) + `"` // the rule of java's argument files
			}
			b.WriteString(option + "\n")
		}
	}
	return b.String(), nil
}

func quoteSh(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func quoteFish(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// quotePowerShell doubles what PowerShell takes for a single quote: the typographic ones too.
func quotePowerShell(s string) string {
	var b strings.Builder
	b.WriteByte('\'')
	for _, r := range s {
		if r == '\'' || r >= 0x2018 && r <= 0x201b {
			b.WriteRune(r)
		}
		b.WriteRune(r)
	}
	b.WriteByte('\'')
	return b.String()
}

// quoteDotenv keeps to what all readers of such files agree on: bare where nothing is special, single quotes are literal, double quotes know
// backslashes.
func quoteDotenv(s string) string {
	switch {
	case plain.MatchString(s):
		return s
	case !strings.Contains(s, "'"):
		return "'" + s + "'"
	default:
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(s) + `"`
	}
}
