package dataset

// This file has the identities of images, the lists of training images, and the digests of frozen eval sets.

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// roboflow matches Roboflow's file names: STEM_EXT.rf.HASH.EXT. inner matches what is left of one that was uploaded
// again.
var (
	roboflow = regexp.MustCompile(`^(.+)\.rf\.[A-Za-z0-9]+\.[A-Za-z]+$`)
	inner    = regexp.MustCompile(`^(.+)\.rf\.[A-Za-z0-9]{16,}$`)
)

// cut returns what an expression for Roboflow's names finds before .rf.
func cut(e *regexp.Regexp, name string) (before string, ok bool) {
	if !strings.Contains(name, ".rf.") { // much quicker than the expression
		return "", false
	}
	if m := e.FindStringSubmatch(name); m != nil {
		return m[1], true
	}
	return "", false
}

// cutExtension returns a name before an extension, or before what Roboflow makes of one: _jpg.
func cutExtension(name string) (before, extension string, ok bool) {
	i := strings.LastIndexAny(name, "._")
	if i < 1 {
		return "", "", false
	}
	switch extension = strings.ToLower(name[i+1:]); extension {
	case "jpeg":
		extension = "jpg"
	case "jpg", "png", "webp", "bmp", "tiff", "tif", "heic":
	default:
		return "", "", false
	}
	return name[:i], extension, true
}

// source returns the name of the image from which a file was made, with its first extension: IMG_1_jpg for
// IMG_1_JPG_jpg.rf.HASH.jpg. made is true if the file has a Roboflow name; other files may be sources themselves.
func source(file string) (name string, made bool) {
	name, ext := path.Base(file), ""
	if before, ok := cut(roboflow, name); ok {
		name, made = before, true
	}
	for {
		if before, ok := cut(inner, name); ok {
			name, ext, made = before, "", true
		} else if before, extension, ok := cutExtension(name); ok {
			name, ext = before, "_"+extension
		} else {
			return name + ext, made
		}
	}
}

// identities returns the identities of an image.
func identities(file, sum string) []string {
	name, made := source(file)
	if made {
		return []string{"sha256:" + sum, "source:" + name}
	}
	return []string{"sha256:" + sum, "plain:" + name}
}

// matches returns identities of which the same image has at least one. Equal names of two
// files without ".rf." do not match.
func matches(file, sum string) []string {
	name, made := source(file)
	if made {
		return []string{"sha256:" + sum, "source:" + name, "plain:" + name}
	}
	return []string{"sha256:" + sum, "source:" + name}
}

// known lists the identities of a split's images: of those that are left out, or of the others.
func (c *checker) known(v *version, s *split, leftOut bool) []string {
	ids := []string{}
	for id, file := range s.images {
		if c.leftOut[s.name][id] == leftOut {
			ids = append(ids, identities(file, v.files[file].sum)...)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// A Store keeps the lists of training images.
type Store interface {
	// Open opens a file by its name.
	Open(name string) (io.ReadSeekCloser, error)
	// Put stores the file or folder at path under a name. What is at path is not changed afterwards.
	Put(name, path string) error
}

// putTrainingImages stores a list of training images and returns its digest. It writes the list into a folder first.
func putTrainingImages(to Store, list delivery.TrainingImages, dir string) (delivery.Digest, error) {
	data := delivery.Canonical(list)
	digest, path := delivery.Sum(data), filepath.Join(dir, "images.json")
	defer os.Remove(path)
	if err := durable.WriteFile(path, data, 0o600); err != nil {
		return "", err
	}
	return digest, to.Put(seenFile(digest), path)
}

func seenFile(digest delivery.Digest) string { return "seen/" + digest.Hex() + ".json" }

// maxSeen is the largest size of one list, in bytes: the identities and looks of 10 million images.
const maxSeen = 4 << 30

// ReadTrainingImages reads a list of training images. A missing or damaged list is a delivery.Blocked error.
func ReadTrainingImages(from Store, digest delivery.Digest) (delivery.TrainingImages, error) {
	var list delivery.TrainingImages
	if _, err := delivery.ParseDigest(string(digest)); err != nil {
		return list, err
	}
	data, err := readSeen(from, digest)
	const restore = "restore the file from a backup of the server's state"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return list, delivery.Blockedf(restore, "the list %s of a model's training images is missing, so they cannot "+
			"be left out of the eval set", digest.Short())
	case err == nil && delivery.Sum(data) != digest:
		return list, delivery.Blockedf(restore, "the list %s of a model's training images is damaged", digest.Short())
	case err == nil:
		err = json.Unmarshal(data, &list)
	}
	if err != nil {
		return list, fmt.Errorf("list of images %s: %w", digest.Short(), pathless(err))
	}
	return list, nil
}

func readSeen(from Store, digest delivery.Digest) ([]byte, error) {
	f, err := from.Open(seenFile(digest))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSeen+1))
	if err == nil && len(data) > maxSeen {
		err = fmt.Errorf("more than %d bytes", int64(maxSeen))
	}
	return data, err
}

// UsedInTraining returns the ids of images that are in the lists. On a validation split
// the lists' validation images do not count: models are chosen and compared on them. An image that only has the name of
// one in a list is compared with that one's looks, if the list has them.
func (d *EvalData) UsedInTraining(lists ...delivery.TrainingImages) map[int64]bool {
	known, looks := map[string]bool{}, map[string][]string{}
	for _, l := range lists {
		for _, id := range l.Train {
			known[id] = true
		}
		if d.Content.EvalSet.Split != "valid" {
			for _, id := range l.Valid {
				known[id] = true
			}
		}
		for name, list := range l.Looks {
			looks[name] = append(looks[name], list...)
		}
	}
	used := map[int64]bool{}
	for _, im := range d.Images {
		if slices.ContainsFunc(im.ids, func(id string) bool {
			_, name, byName := strings.Cut(id, ":")
			return known[id] && (strings.HasPrefix(id, "sha256:") || !byName || !otherLook(im.Path, looks[name]))
		}) {
			used[im.ID] = true
		}
	}
	return used
}

// Frozen describes the content of an eval set.
type Frozen struct {
	EvalSet  delivery.EvalSet `json:"evalSet"` // with its content
	Images   int              `json:"images"`  // without copies
	Groups   int              `json:"groups,omitempty"`
	Truths   map[string]int   `json:"truths"` // by category: those that count, so no crowds
	Problems []string         `json:"problems,omitempty"`
}

// Freeze reads an eval set and computes the digest of its content.
func (c Catalog) Freeze(ctx context.Context, e delivery.EvalSet) (Frozen, error) {
	e.Content = ""
	out := Frozen{EvalSet: e, Truths: map[string]int{}}
	v, s, err := c.evalSplit(ctx, e)
	if err != nil {
		return out, err
	}
	for _, p := range s.problems {
		out.Problems = append(out.Problems, fmt.Sprintf("%s: %s: %s", s.place("", p), field(p), p.Text))
	}
	switch n := len(v.copies(s)); {
	case n == 1:
		out.Problems = append(out.Problems, "1 image is a copy of another, and does not count again")
	case n > 1:
		out.Problems = append(out.Problems, fmt.Sprintf("%d images are copies of others, and do not count again", n))
	}
	groups := map[string]bool{}
	usable := v.usable(s)
	for _, im := range usable.Images {
		groups[im.Group] = true
	}
	if out.Images = len(usable.Images); e.Group != "" {
		out.Groups = len(groups)
	}
	out.Truths = counts(usable)
	out.EvalSet.Content = v.frozen(e, s)
	return out, nil
}

// frozen returns the digest of an eval set's content: its images' bytes in id order, all
// truths of all categories, and the images' groups.
func (v *version) frozen(e delivery.EvalSet, s *split) delivery.Digest {
	h := sha256.New()
	for _, im := range byID(s.truth.Images) {
		sum := ""
		if file, ok := s.images[im.ID]; ok {
			sum = v.files[file].sum
		}
		fmt.Fprintf(h, "%d %s %q\n", im.ID, sum, im.Group)
	}
	return delivery.DigestOf("frozen", []any{hex.EncodeToString(h.Sum(nil)), s.truth.Digest()})
}

const refreeze = "restore the files, or freeze the new content in a pull request: aob gate freeze"

// thawed returns how an eval set differs from its frozen content, or "".
func (v *version) thawed(e delivery.EvalSet, s *split) string {
	if e.Content == "" {
		return ""
	}
	if now := v.frozen(e, s); now != e.Content {
		return fmt.Sprintf("has content %s, but the gate froze %s", now.Short(), e.Content.Short())
	}
	return ""
}
