package trust

import (
	"cmp"
	"strings"
)

// javaProperties are the system properties that are set here; values that were there before give way.
var javaProperties = []string{"http.proxyHost", "http.proxyPort", "https.proxyHost", "https.proxyPort", "http.nonProxyHosts",
	"javax.net.ssl.trustStore", "javax.net.ssl.trustStorePassword", "javax.net.ssl.trustStoreType"}

// javaFlags are the options of a Java virtual machine: it reads no proxy variable and no PEM file. There is none for credentials, and they
// must not be here: the machine prints this variable on every start.
func (s Settings) javaFlags() []string {
	var flags []string
	if host, port := s.hostPort(); host != "" {
		flags = append(flags, "-Dhttp.proxyHost="+host, "-Dhttp.proxyPort="+port, "-Dhttps.proxyHost="+host, "-Dhttps.proxyPort="+port,
			"-Dhttp.nonProxyHosts="+javaNonProxy(s.noProxy()))
	}
	if s.JavaTrustStore != "" {
		flags = append(flags, "-Djavax.net.ssl.trustStore="+s.JavaTrustStore,
			"-Djavax.net.ssl.trustStorePassword="+cmp.Or(s.JavaTrustStorePassword, DefaultStorePassword))
	}
	return flags
}

// javaOptions is JAVA_TOOL_OPTIONS: what was there, without what is set anew, and the flags.
func (s Settings) javaOptions() string {
	flags := s.javaFlags()
	if len(flags) == 0 {
		return ""
	}
	var all []string
	for _, option := range splitJava(s.getenv("JAVA_TOOL_OPTIONS")) {
		if !setsProperty(option) {
			all = append(all, option)
		}
	}
	all = append(all, flags...)
	for i, option := range all {
		all[i] = quoteJava(option)
	}
	return strings.Join(all, " ")
}

func setsProperty(option string) bool {
	for _, p := range javaProperties {
		if strings.HasPrefix(option, "-D"+p+"=") {
			return true
		}
	}
	return false
}

// javaNonProxy translates NO_PROXY: a bare name there covers what is below it, here it needs a pattern of its own; networks and ports have no
// counterpart.
func javaNonProxy(list []string) string {
	var out []string
	for _, entry := range list {
		name := strings.TrimPrefix(strings.TrimPrefix(entry, "*"), ".")
		switch {
		case entry == "*":
			return "*"
		case strings.Contains(entry, "/") || hasPort(entry):
			continue
		case strings.Contains(entry, ":"):
			out = append(out, "["+strings.Trim(entry, "[]")+"]")
		case strings.Trim(entry, "0123456789.") == "":
			out = append(out, entry)
		default:
			out = append(out, name, "*."+name)
		}
	}
	return strings.Join(out, "|")
}

// splitJava splits as the virtual machine does: at blanks, outside of single or double quotes, which it takes away.
func splitJava(value string) []string {
	var out []string
	var option strings.Builder
	quote, open := rune(0), false
	for _, r := range value {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			option.WriteRune(r)
		case r == '"' || r == '\'':
			quote, open = r, true
		case r == ' ' || r == '\t' || r == '\n' || r == '\r':
			if open {
				out = append(out, option.String())
				option.Reset()
				open = false
			}
		default:
			option.WriteRune(r)
			open = true
		}
	}
	if open {
		out = append(out, option.String())
	}
	return out
}

func quoteJava(option string) string {
	switch {
	case !strings.ContainsAny(option, " \t\n\r\"'"):
		return option
	case !strings.Contains(option, `"`):
		return `"` + option + `"`
	default: // no character escapes a quote, but another kind of quotes may follow
		return "'" + strings.ReplaceAll(option, "'", `'"'"'`) + "'"
	}
}
