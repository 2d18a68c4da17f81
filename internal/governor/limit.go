package governor

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"

	"httpowerd/internal/setting"
)

// Limit says how much memory the process may use: auto, off, or a size.
type Limit struct {
	Auto  bool
	Bytes int64 // 0 where Auto is set, or without any limit
}

// DecodeSetting takes auto, off and a size.
func (l *Limit) DecodeSetting(v any) error {
	switch v {
	case "auto":
		*l = Limit{Auto: true}
		return nil
	case "off", false:
		*l = Limit{}
		return nil
	}
	var size setting.Size
	text, ok := v.(string)
	if n, number := v.(int64); number {
		text, ok = strconv.FormatInt(n, 10), true
	}
	if !ok || size.UnmarshalText([]byte(text)) != nil {
		return errors.New("must be auto, off, or a size such as 512MiB")
	}
	if size < smallest {
		return errors.New("is less than 32MiB, which the proxy needs for itself")
	}
	*l = Limit{Bytes: int64(size)}
	return nil
}

const smallest = 32 << 20

// SettingKind describes what may be written.
func (*Limit) SettingKind() string { return "auto, off, or a size such as 512MiB" }

// String is the value as it is written.
func (l Limit) String() string {
	switch {
	case l.Auto:
		return "auto"
	case l.Bytes == 0:
		return "off"
	}
	return setting.Size(l.Bytes).String()
}

// share is the part of a container's memory that the process may use: the kernel's part of its connections counts there too.
const share = 0.9

// Resolve finds what auto means: GOMEMLIMIT where that is set, else nine tenths of what the cgroup allows, else no limit (0).
func (l Limit) Resolve() int64 {
	if !l.Auto {
		return l.Bytes
	}
	if os.Getenv("GOMEMLIMIT") != "" {
		if n := debug.SetMemoryLimit(-1); n != math.MaxInt64 {
			return n
		}
		return 0
	}
	if n := cgroupLimit("/"); n > 0 {
		return int64(float64(n) * share)
	}
	return 0
}

// cgroupLimit is the least memory limit of the process's cgroup and those above it, 0 for none. root is where the file system begins.
func cgroupLimit(root string) int64 {
	text, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return 0
	}
	least := int64(0)
	see := func(path string) {
		data, err := os.ReadFile(path)
		if err != nil {
			return
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
		if err == nil && n > 0 && n < 1<<62 && (least == 0 || n < least) {
			least = n
		}
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		var base string
		var files []string
		switch {
		case fields[0] == "0" && fields[1] == "":
			base, files = "sys/fs/cgroup", []string{"memory.max", "memory.high"}
		case strings.Contains(","+fields[1]+",", ",memory,"):
			base, files = "sys/fs/cgroup/memory", []string{"memory.limit_in_bytes"}
		default:
			continue
		}
		for dir := filepath.Clean("/" + fields[2]); ; dir = filepath.Dir(dir) {
			for _, f := range files {
				see(filepath.Join(root, base, dir, f))
			}
			if dir == "/" {
				break
			}
		}
	}
	return least
}
