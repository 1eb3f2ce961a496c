package dataset

import (
	"bytes"
	"crypto/sha256"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// A memoryFile has what was found about the files of a folder.
type memoryFile struct {
	Format  int
	Entries []remembered
}

// A remembered file is known by its stamp.
type remembered struct {
	Name    string
	Stamp   stamp
	Sum     string
	Header  *imageHeader
	Picture *decodedImage
}

// memoryFormat changes when an entry means something else, as after a change of the hash of looks.
const memoryFormat = 2

// settled is how old a change must be to be remembered: a file may change twice within the resolution of its times.
const settled = 2 * time.Second

// maxMemoryFile is the largest size of a memory, in bytes.
const maxMemoryFile = 4 << 30

// memory returns the path of the memory of a folder, or "" if there is none. What is in a folder that others may write
// is not believed: they could hide what a check finds.
func (c Catalog) memory(dir string) string {
	if c.Memory == "" || os.MkdirAll(c.Memory, 0o700) != nil {
		return ""
	}
	info, err := os.Lstat(c.Memory)
	if err != nil || !info.IsDir() || info.Mode().Perm()&0o022 != 0 {
		return ""
	}
	if sys, ok := info.Sys().(*syscall.Stat_t); !ok || int(sys.Uid) != os.Geteuid() {
		return ""
	}
	return filepath.Join(c.Memory, delivery.Sum([]byte(dir)).Hex()+".gob")
}

// recall fills in what is remembered of files that did not change.
func (v *version) recall(path string) {
	if path == "" {
		return
	}
	f, err := openFile(path)
	if err != nil {
		return
	}
	defer f.Close()
	var m memoryFile
	if err := gob.NewDecoder(io.LimitReader(f, maxMemoryFile)).Decode(&m); err != nil || m.Format != memoryFormat {
		return // it is written anew
	}
	for _, r := range m.Entries {
		if f := v.files[r.Name]; f != nil && f.stamp == r.Stamp {
			f.sum, f.header, f.picture = r.Sum, r.Header, r.Picture
		}
	}
}

// A rememberedResult is the result of a check of a folder.
type rememberedResult struct {
	Key    delivery.Digest     `json:"key"`
	Result delivery.DataResult `json:"result"`
}

// resultKey returns a digest of all that the result of a check depends on: the run, the files by their stamps, and the
// program. It is empty if something is not certain: a file that was just changed, or a dataset elsewhere.
func (v *version) resultKey(run delivery.DataRun, headersOnly bool) delivery.Digest {
	program, err := os.Executable()
	if err != nil || len(run.EvalSets) > 0 {
		return ""
	}
	info, err := os.Stat(program)
	if err != nil {
		return ""
	}
	h := sha256.New()
	for _, name := range v.names() {
		f := v.files[name]
		if !v.settled(f) {
			return ""
		}
		fmt.Fprintf(h, "%q %v\n", name, f.stamp)
	}
	pattern := ""
	if v.scenes != nil {
		pattern = v.scenes.String()
	}
	return delivery.DigestOf("check", []any{run, headersOnly, pattern, stampOf(info), hex.EncodeToString(h.Sum(nil))})
}

// recallResult returns the remembered result of a check.
func recallResult(path string, key delivery.Digest) (delivery.DataResult, bool) {
	var r rememberedResult
	data, err := durable.ReadNoFollow(path+".result", 64<<20)
	if path == "" || key == "" || err != nil || json.Unmarshal(data, &r) != nil || r.Key != key {
		return r.Result, false
	}
	return r.Result, true
}

// keepResult remembers the result of a check.
func keepResult(path string, key delivery.Digest, result delivery.DataResult) {
	data, err := json.Marshal(rememberedResult{key, result})
	if path != "" && key != "" && err == nil && os.MkdirAll(filepath.Dir(path), 0o700) == nil {
		_ = durable.WriteFile(path+".result", data, 0o600) // it only saves time
	}
}

// settled reports whether the last change of a file was well before the files were listed.
func (v *version) settled(f *file) bool {
	return max(f.stamp.Modified, f.stamp.Changed) < v.began.Add(-settled).UnixNano()
}

// keep writes what was found, if something new was. The memory only saves time, so nothing is said if it cannot be
// written.
func (v *version) keep(path string) {
	if path == "" || !v.fresh {
		return
	}
	m := memoryFile{Format: memoryFormat}
	for _, name := range v.names() {
		f := v.files[name]
		if f.sum != "" && v.settled(f) {
			m.Entries = append(m.Entries, remembered{name, f.stamp, f.sum, f.header, f.picture})
		}
	}
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(m); err == nil && os.MkdirAll(filepath.Dir(path), 0o700) == nil {
		_ = durable.WriteFile(path, b.Bytes(), 0o600)
	}
}
