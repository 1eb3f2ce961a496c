package trainer

// This file says how much disk an environment still needs.

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// pinned matches the line of a lock file that names a package and its version.
var pinned = regexp.MustCompile(`(?m)^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\\s]+)`)

// Needs returns how much disk an environment needs that takes so much with an empty cache. Packages of its lock file
// that are in uv's cache already take no more.
func (e Environments) Needs(lock []byte, disk delivery.Bytes) delivery.Bytes {
	wanted := map[string]bool{}
	for _, m := range pinned.FindAllSubmatch(lock, -1) {
		wanted[canonical(string(m[1]))+"-"+string(m[2])] = true
	}
	folders, _ := filepath.Glob(filepath.Join(e.cache(), "archive-v0", "*")) // none: nothing is cached
	for _, folder := range folders {
		entries, _ := os.ReadDir(folder)
		for _, entry := range entries {
			name, version, _ := strings.Cut(strings.TrimSuffix(entry.Name(), ".dist-info"), "-")
			if key := canonical(name) + "-" + version; wanted[key] && strings.HasSuffix(entry.Name(), ".dist-info") {
				if n, err := size(folder); err == nil {
					disk = max(0, disk-delivery.Bytes(n))
				}
				delete(wanted, key)
				break
			}
		}
	}
	return disk
}

// canonical is the name of a package as Python's tools compare it.
func canonical(name string) string {
	return strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name))
}
