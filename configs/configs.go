// Package configs holds the configuration files that are a part of the program: the reference, and what profiles and providers say.
package configs

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

//go:embed reference.yaml profiles/*.yaml providers/*.yaml
var files embed.FS

// Folders of the sets that a policy may name.
const (
	profiles  = "profiles"
	providers = "providers"
)

// Reference is the configuration with every key at its default, and a comment on each.
func Reference() []byte {
	data, err := files.ReadFile("reference.yaml")
	if err != nil {
		panic(err) // it is embedded
	}
	return data
}

// ProfileNames lists what profile: may be, sorted.
func ProfileNames() []string { return names(profiles) }

// ProviderNames lists what provider: may be, sorted.
func ProviderNames() []string { return names(providers) }

// Profile is the file of one profile: its key policy: holds the blocks.
func Profile(name string) ([]byte, error) { return read(profiles, "profile", name) }

// Provider is the file of one provider. It has the form of a profile's.
func Provider(name string) ([]byte, error) { return read(providers, "provider", name) }

func names(folder string) []string {
	found, err := fs.Glob(files, folder+"/*.yaml")
	if err != nil {
		panic(err) // the pattern is ours
	}
	for i, file := range found {
		found[i] = strings.TrimSuffix(path.Base(file), ".yaml")
	}
	slices.Sort(found) // by name: "api.yaml" and "api-x.yaml" sort the other way round
	return found
}

// read takes names of the list alone, so that none leads out of its folder.
func read(folder, kind, name string) ([]byte, error) {
	if !slices.Contains(names(folder), name) {
		return nil, fmt.Errorf("there is no %s %q", kind, name)
	}
	return files.ReadFile(folder + "/" + name + ".yaml")
}
