package dataset

import (
	"path"
	"strconv"
	"strings"
)

// This file finds the images of one version in another.

// pair finds the images of one version in the other: first by name and bytes, then by bytes, by name, by the source's
// name, by the id of one whose file is missing, and by look.
func pair(a, b *examined) {
	by := func(key func(e *compared) string) {
		open := map[string][]*compared{}
		for _, e := range a.entries {
			if k := key(e); e.found == nil && k != "" {
				open[k] = append(open[k], e)
			}
		}
		for _, e := range b.entries {
			if list := open[key(e)]; e.found == nil && len(list) > 0 {
				e.found, list[0].found = list[0], e
				open[key(e)] = list[1:]
			}
		}
	}
	keyed := func(parts ...string) string {
		if parts[0] == "" {
			return ""
		}
		return strings.Join(parts, "\x00")
	}
	id := func(e *compared) string { return strconv.FormatInt(e.id, 10) }
	made := func(e *compared) string {
		if name, ok := source(e.name); ok {
			return name
		}
		return ""
	}
	by(func(e *compared) string { return keyed(e.sum, e.name, e.split, id(e)) })
	by(func(e *compared) string { return keyed(e.sum, e.name, e.split) })
	by(func(e *compared) string { return keyed(e.sum, e.split) })
	by(func(e *compared) string { return e.sum })
	by(func(e *compared) string { return keyed(e.name, e.split) })
	by(func(e *compared) string { return keyed(made(e), e.split) })
	by(made)
	ids := map[string]*compared{}
	for _, e := range a.entries {
		if e.found == nil {
			ids[keyed(id(e), e.split)] = e
		}
	}
	for _, e := range b.entries { // a name that has no file
		o := ids[keyed(id(e), e.split)]
		if e.found == nil && o != nil && o.found == nil && (e.file == "" || o.file == "") {
			e.found, o.found = o, e
		}
	}
	var looks bands
	var list []imageFile
	var of []*compared
	for _, e := range a.entries {
		if hash, ok := a.hash(e); ok && e.found == nil {
			looks.add(len(list), hash)
			list, of = append(list, imageFile{hash: hash}), append(of, e)
		}
	}
	for _, e := range b.entries {
		hash, ok := b.hash(e)
		if !ok || e.found != nil {
			continue
		}
		i := looks.nearest(append(list, imageFile{hash: hash}), len(list), func(j int) bool {
			return of[j].found == nil
		})
		if i >= 0 {
			e.found, of[i].found = of[i], e
		}
	}
}

// changes lists what is other about an image itself.
func changes(a, b *examined, before, now *compared) (list []string) {
	list = []string{}
	switch sameBase := path.Base(before.name) == path.Base(now.name); {
	case before.split != now.split:
		if list = append(list, Moved); !sameBase {
			list = append(list, Renamed)
		}
	case before.name != now.name:
		list = append(list, Renamed)
	}
	switch {
	case before.file != "" && now.file == "":
		list = append(list, Lost)
	case before.file == "" && now.file != "":
		list = append(list, Found)
	case before.sum != now.sum:
		x, known := a.hash(before)
		y, ok := b.hash(now)
		code := func(r *examined, e *compared) string {
			f := r.v.files[e.file]
			if f.header != nil && f.header.Code != "" {
				return f.header.Code
			}
			if f.picture != nil {
				return f.picture.Code
			}
			return ""
		}
		switch {
		case code(b, now) != "" && code(a, before) == "":
			list = append(list, Broken)
		case known && ok && x.apart(y) > maxApart:
			list = append(list, Replaced)
		default:
			list = append(list, Encoded)
		}
	}
	if before.size != now.size {
		list = append(list, Resized)
	}
	return list
}

// scale returns by how much an image is wider and higher than before.
func scale(a, b *examined, before, now *compared) (x, y float64) {
	if before.file == "" || now.file == "" || before.sum == now.sum {
		return 1, 1
	}
	w, h := a.v.size(before.file)
	wide, high := b.v.size(now.file)
	if w == 0 || h == 0 || wide == 0 || high == 0 {
		return 1, 1
	}
	return float64(wide) / float64(w), float64(high) / float64(h)
}
