package dataset

// This file says which files are the same image, which images a training has
// seen, and what an eval set held when it was frozen.

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// Roboflow's names: the source's stem and extension, and what made this version.
var roboflow = regexp.MustCompile(`^(.+)\.rf\.[A-Za-z0-9]+\.[A-Za-z]+$`)

// source is what an image file was made from, and whether its name says so; a
// name without ".rf." may be a source itself.
func source(file string) (name string, made bool) {
	name = path.Base(file)
	if m := roboflow.FindStringSubmatch(name); m != nil {
		name, made = m[1], true
	}
	for _, joint := range []string{"_", "."} {
		if i := strings.LastIndex(name, joint); i > 0 {
			if ext := strings.ToLower(name[i+1:]); ext == "jpeg" || ext == "jpg" || ext == "png" {
				return name[:i] + "_" + strings.Replace(ext, "jpeg", "jpg", 1), made
			}
		}
	}
	return name, made
}

// identities are the names that an image is known by.
func identities(file, sum string) []string {
	name, made := source(file)
	if made {
		return []string{"sha256:" + sum, "source:" + name}
	}
	return []string{"sha256:" + sum, "plain:" + name}
}

// asksFor are the names that another image has if it is the same: where neither
// is Roboflow's, equal names say nothing.
func matches(file, sum string) []string {
	name, made := source(file)
	if made {
		return []string{"sha256:" + sum, "source:" + name, "plain:" + name}
	}
	return []string{"sha256:" + sum, "source:" + name}
}

// seenImages lists the images that the trainer gets and keeps the list under its
// digest.
func (c *checker) seenImages(v *version, splits map[string]*split, to Store) (delivery.Digest, error) {
	return putTrainingImages(to, delivery.TrainingImages{Train: c.known(v, splits["train"], false),
		Valid: c.known(v, splits["valid"], false)})
}

// withheld keeps the list of validation images that stand in an eval set: no
// experiment is to be scored on them.
func (c *checker) withheld(v *version, valid *split, to Store) (delivery.Digest, error) {
	return putTrainingImages(to, delivery.TrainingImages{Train: c.known(v, valid, true), Valid: []string{}})
}

// known lists the names by which a split's images are known, of those that are
// left out or of the others.
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

// A Store keeps the lists of images that trainings saw.
type Store interface {
	Open(name string) (io.ReadSeekCloser, error)
	Put(name string, data []byte) error
}

func putTrainingImages(to Store, list delivery.TrainingImages) (delivery.Digest, error) {
	data := delivery.Canonical(list)
	digest := delivery.Sum(data)
	return digest, to.Put(seenFile(digest), data)
}

func seenFile(digest delivery.Digest) string { return "seen/" + digest.Hex() + ".json" }

// maxSeen is the most bytes of one list of images: two names each of twenty
// million.
const maxSeen = 4 << 30

// ReadTrainingImages reads a list of the images that a training has seen.
func ReadTrainingImages(from Store, digest delivery.Digest) (delivery.TrainingImages, error) {
	var seen delivery.TrainingImages
	if _, err := delivery.ParseDigest(string(digest)); err != nil {
		return seen, err
	}
	f, err := from.Open(seenFile(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return seen, delivery.Blockedf("restore the file from a backup of the server's state",
			"the list %s of images that a model was trained on is gone, so nobody can say which of them stand in the "+
				"eval set", digest.Short())
	}
	if err != nil {
		return seen, fmt.Errorf("list of images %s: %w", digest.Short(), pathless(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSeen+1))
	if err == nil && len(data) > maxSeen {
		err = fmt.Errorf("more than %d bytes", int64(maxSeen))
	}
	if err != nil {
		return seen, fmt.Errorf("list of images %s: %w", digest.Short(), pathless(err))
	}
	if delivery.Sum(data) != digest {
		return seen, delivery.Blockedf("restore the file from a backup of the server's state",
			"the list %s of images that a model was trained on is damaged", digest.Short())
	}
	if err := json.Unmarshal(data, &seen); err != nil {
		return seen, fmt.Errorf("list of images %s: %w", digest.Short(), err)
	}
	return seen, nil
}

// UsedInTraining returns the ids of images that a training has seen, by lists of what it
// saw. On a validation split only what was trained on counts: a model is chosen
// on its own, and compared there.
func (d *EvalData) UsedInTraining(lists ...delivery.TrainingImages) map[int64]bool {
	known := map[string]bool{}
	for _, l := range lists {
		for _, id := range l.Train {
			known[id] = true
		}
		if d.Content.EvalSet.Split != "valid" {
			for _, id := range l.Valid {
				known[id] = true
			}
		}
	}
	seen := map[int64]bool{}
	for _, im := range d.Images {
		if slices.ContainsFunc(im.asks, func(id string) bool { return known[id] }) {
			seen[im.ID] = true
		}
	}
	return seen
}

// Frozen is what an eval set holds at one moment.
type Frozen struct {
	EvalSet  delivery.EvalSet `json:"evalSet"` // with its content
	Images   int              `json:"images"`
	Groups   int              `json:"groups,omitempty"`
	Truths   map[string]int   `json:"truths"` // by category
	Problems []string         `json:"problems,omitempty"`
}

// Freeze reads an eval set and names what it holds.
func (c Catalog) Freeze(ctx context.Context, e delivery.EvalSet) (Frozen, error) {
	e.Content = ""
	out := Frozen{EvalSet: e, Truths: map[string]int{}}
	v, err := c.open(ctx, e.Dataset)
	if err != nil {
		return out, err
	}
	s, ok, err := v.split(e.Split, e.Group)
	if err != nil {
		return out, delivery.Blockedf("mend the file", "eval set %s: %v", e, err)
	}
	if !ok {
		return out, delivery.Blockedf("check the name of the split", "eval set %s: there is no %s/%s", e, e.Split,
			AnnotationsFile)
	}
	if len(s.missing) > 0 {
		return out, delivery.Blockedf("put the image there", "eval set %s: image %s is missing", e,
			s.missing[0].FileName)
	}
	if i := slices.IndexFunc(s.problems, ungrouped(e.Group)); e.Group != "" && i >= 0 {
		return out, delivery.Blockedf("give every image the field, or freeze it without --group", "eval set %s: %s", e,
			s.problems[i].Text)
	}
	if err := v.hash(ctx, s.files()); err != nil {
		return out, err
	}
	for _, p := range s.problems {
		out.Problems = append(out.Problems, fmt.Sprintf("%s/%s:%d: %s: %s", s.name, AnnotationsFile, p.Line, p.Path,
			p.Text))
	}
	groups := map[string]bool{}
	for _, im := range s.truth.Images {
		groups[im.Group] = true
	}
	if out.Images = len(s.truth.Images); e.Group != "" {
		out.Groups = len(groups)
	}
	category := map[int64]string{}
	for _, c := range s.truth.Categories {
		category[c.ID] = c.Name
		out.Truths[c.Name] += 0
	}
	for _, a := range s.truth.Annotations {
		out.Truths[category[a.Category]]++
	}
	out.EvalSet.Content = v.frozen(e, s)
	return out, nil
}

// frozen names all that an eval set holds: its images' bytes in id order, every
// truth of every category, and what groups the images.
func (v *version) frozen(e delivery.EvalSet, s *split) delivery.Digest {
	images := slices.Clone(s.truth.Images)
	slices.SortFunc(images, func(a, b coco.Image) int { return int(min(max(a.ID-b.ID, -1), 1)) })
	h := sha256.New()
	for _, im := range images {
		sum := ""
		if file, ok := s.images[im.ID]; ok {
			sum = v.files[file].sum
		}
		fmt.Fprintf(h, "%d %s %q\n", im.ID, sum, im.Group)
	}
	return delivery.DigestOf("frozen", []any{hex.EncodeToString(h.Sum(nil)), s.truth.Digest()})
}

const refreeze = "put the files back, or freeze what is there now in a pull request: aob gate freeze"

// thawed says that an eval set holds something else than when it was frozen.
func (v *version) thawed(e delivery.EvalSet, s *split) string {
	if e.Content == "" {
		return ""
	}
	if now := v.frozen(e, s); now != e.Content {
		return fmt.Sprintf("holds %s, and the gate froze %s", now.Short(), e.Content.Short())
	}
	return ""
}
