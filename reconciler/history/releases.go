package history

import (
	"errors"
	"maps"
	"slices"

	"github.com/autonomos/aob/reconciler/commits"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/plan"
)

// A modelPast is what is known of the past of one model that plans need.
type modelPast struct {
	main  string                       // the commit of main at which past was read; empty if it must be read again
	past  []plan.Past                  // as last read
	files map[string]*delivery.Release // release files by blob; nil for a blob that is none
	specs map[string]delivery.Digest   // by commit
}

// Releases adds the releases of the models that a plan needs to a world.
func (h *History) Releases(w *plan.World) {
	models := plan.NeedsHistory(*w)
	var bad delivery.Unreadable
	for _, model := range models {
		old, known := h.failed[model]
		if !known || h.turn.Now().Sub(old.at) >= retryAfter {
			past, err := h.releasesOf(w.Main.Commit, model)
			if err == nil {
				delete(h.failed, model)
				w.Main.History[model] = past
				continue
			}
			old = failure{err, h.turn.Now()}
			h.failed[model] = old
		}
		w.Main.History[model], w.Main.Unread[model] = h.pastOf(model).past, old.err.Error()
		bad = append(bad, delivery.Unread{What: model, Why: old.err.Error()})
		h.turn.At(old.at.Add(retryAfter), "the history of a model is read again")
	}
	needed := func(model string) bool { _, ok := slices.BinarySearch(models, model); return ok }
	h.forgetReleases(needed)
	maps.DeleteFunc(h.failed, func(model string, _ failure) bool { return !needed(model) })
	h.noteUnread(releasesTrouble, bad)
}

// maxParsed is how many parsed release files are kept of models that are not needed now: the next pull request needs
// its model's again, and there are more of them each time.
const maxParsed = 10_000

// forgetReleases forgets models that are not needed, until not too many releases are kept.
func (h *History) forgetReleases(needed func(model string) bool) {
	parsed := 0
	for _, m := range h.releases {
		parsed += len(m.files)
	}
	for model, m := range h.releases {
		if parsed <= maxParsed {
			return
		}
		if !needed(model) {
			parsed -= len(m.files)
			delete(h.releases, model)
		}
	}
}

func (h *History) pastOf(model string) *modelPast {
	m, ok := h.releases[model]
	if !ok {
		m = &modelPast{files: map[string]*delivery.Release{}, specs: map[string]delivery.Digest{}}
		h.releases[model] = m
	}
	return m
}

// releasesOf reads all versions of a model's release file. Each file is parsed once, and nothing is read while main
// has not moved.
func (h *History) releasesOf(main, model string) ([]plan.Past, error) {
	m := h.pastOf(model)
	if main != "" && m.main == main {
		return m.past, nil
	}
	versions, err := h.repo.History(main, releaseFile(model))
	if err != nil {
		return nil, err
	}
	past, whole := make([]plan.Past, 0, len(versions)), true
	for _, v := range versions {
		p := plan.Past{Commit: v.Commit, Side: v.Side, Order: v.Order}
		if v.Blob != "" {
			release, known := m.files[v.Blob]
			if !known {
				if release, err = h.release(model, v.Blob); err == nil {
					m.files[v.Blob] = release
				} else if !errors.Is(err, git.ErrTooBig) {
					return nil, err
				} else {
					whole = false
				}
			}
			if p.Release = release; release != nil {
				if p.Spec, err = h.specAt(m, v.Commit, model); err != nil {
					return nil, err
				}
			}
		}
		if v.Blob == "" && !v.Side {
			subject, err := h.repo.Subject(v.Commit)
			if err != nil {
				return nil, err
			}
			if pulls := delivery.Pulls(subject); len(pulls) > 0 {
				p.Pull = pulls[0]
			}
		}
		past = append(past, p)
	}
	if m.main, m.past = main, past; !whole {
		m.main = ""
	}
	return past, nil
}

func releaseFile(model string) string { return "models/" + model + ".release.yaml" }

// release parses a release file; nil if the blob is none.
func (h *History) release(model, blob string) (*delivery.Release, error) {
	data, err := h.repo.Blob(blob, intent.MaxFileSize)
	if err != nil {
		return nil, err
	}
	if r, ok := commits.Document(releaseFile(model), data).Value.(delivery.Release); ok {
		return &r, nil
	}
	return nil, nil
}

// specAt returns the spec digest of a model at a commit, or "" if there is no such model.
func (h *History) specAt(m *modelPast, commit, model string) (delivery.Digest, error) {
	if spec, ok := m.specs[commit]; ok {
		return spec, nil
	}
	path := "models/" + model + ".yaml"
	data, err := h.commits.File(commit, path)
	if err != nil && !errors.Is(err, git.ErrTooBig) {
		return "", err
	}
	var spec delivery.Digest
	if data != nil {
		if m, ok := h.commits.Parser.ParseAccepted(intent.File{Path: path, Data: data}).Value.(delivery.Model); ok {
			spec = m.SpecDigest()
		}
	}
	m.specs[commit] = spec
	return spec, nil
}
