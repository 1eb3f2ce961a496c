package intent

import "github.com/autonomos/aob/reconciler/delivery"

// Decode reads a file of another package into v as strictly as the files of this one. v is a pointer to a struct with
// json, check and doc tags; doc describes a key where it is missing. check is called if there is no complaint yet. It
// adds complaints about values by their paths, as in profiles.line.memory.
func Decode(file string, data []byte, v any, check func(complain func(path, text string))) []delivery.Complaint {
	d := &document{file: file}
	if d.open(File{Path: file, Size: int64(len(data)), Data: data}) {
		d.decode(v)
		if d.valid("") {
			check(func(path, text string) { d.complain(path, "%s", text) })
		}
	}
	return d.complaints()
}

// Member returns the path of a key in a map.
func Member(path, key string) string { return member(path, key) }
