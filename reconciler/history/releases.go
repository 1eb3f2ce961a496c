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

// Releases adds the releases of the models that a plan needs to a world.
func (h *History) Releases(w *plan.World) {
	models := plan.NeedsHistory(*w)
	var bad delivery.Unreadable
	for _, model := range models {
		old, known := h.failed[model]
		if !known || h.turn.Now().Sub(old.at) >= retryAfter {
			past, err := h.releasesOf(w.Main.Commit, model)
			if err == nil {
				h.releases[model] = past
				delete(h.failed, model)
				w.Main.History[model] = past
				continue
			}
			old = failure{err, h.turn.Now()}
			h.failed[model] = old
		}
		w.Main.History[model], w.Main.Unread[model] = h.releases[model], old.err.Error()
		bad = append(bad, delivery.Unread{What: model, Why: old.err.Error()})
		h.turn.At(old.at.Add(retryAfter), "the history of a model is read again")
	}
	needed := func(model string) bool { _, ok := slices.BinarySearch(models, model); return ok }
	maps.DeleteFunc(h.releases, func(model string, _ []plan.Past) bool { return !needed(model) })
	maps.DeleteFunc(h.failed, func(model string, _ failure) bool { return !needed(model) })
	h.noteUnread(releasesTrouble, bad)
}

// releasesOf reads all versions of a model's release file.
func (h *History) releasesOf(main, model string) ([]plan.Past, error) {
	path := "models/" + model + ".release.yaml"
	versions, err := h.repo.History(main, path)
	if err != nil {
		return nil, err
	}
	past := make([]plan.Past, 0, len(versions))
	for _, v := range versions {
		p := plan.Past{Commit: v.Commit, Side: v.Side, Order: v.Order}
		if v.Blob != "" {
			data, err := h.repo.Blob(v.Blob, intent.MaxFileSize)
			if err != nil && !errors.Is(err, git.ErrTooBig) {
				return nil, err
			}
			if r, ok := commits.Document(path, data).Value.(delivery.Release); ok {
				p.Release = &r
				if p.Spec, err = h.specAt(v.Commit, model); err != nil {
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
	return past, nil
}

// specAt returns the spec digest of a model at a commit, or "" if there is no such model.
func (h *History) specAt(commit, model string) (delivery.Digest, error) {
	key := [2]string{commit, model}
	if spec, ok := h.specs[key]; ok {
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
	if len(h.specs) > maxSpecs {
		clear(h.specs)
	}
	h.specs[key] = spec
	return spec, nil
}
