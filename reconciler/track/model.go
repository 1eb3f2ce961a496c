package track

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A loggedModel is a logged model as MLflow has it.
type loggedModel struct {
	Info struct {
		ID      string `json:"model_id"`
		Status  string `json:"status"`
		Created int64  `json:"creation_timestamp_ms"`
		Tags    []pair `json:"tags"`
	} `json:"info"`
}

// Statuses of logged models.
const (
	modelPending = "LOGGED_MODEL_PENDING"
	modelReady   = "LOGGED_MODEL_READY"
	modelFailed  = "LOGGED_MODEL_UPLOAD_FAILED"
)

// loggedModel returns the logged model of a run, and makes it if there is none. It is an output of the run.
func (m *MLflow) loggedModel(ctx context.Context, experiment string, r Run, of trackedRun) (loggedModel, error) {
	found, err := m.findLoggedModel(ctx, experiment, r.Key)
	if err != nil {
		return loggedModel{}, err
	}
	if found == nil {
		var made struct {
			Model loggedModel `json:"model"`
		}
		err := m.post(ctx, "logged-models", map[string]any{"experiment_id": experiment, "name": r.Experiment,
			"model_type": "onnx", "source_run_id": of.Info.ID, "tags": []pair{{RunTag, string(r.Key)}}}, &made)
		if err != nil {
			return loggedModel{}, err
		}
		found = &made.Model
	}
	if !slices.ContainsFunc(of.Outputs.Models, func(o modelOutput) bool { return o.Model == found.Info.ID }) {
		err = m.post(ctx, "runs/outputs", map[string]any{"run_id": of.Info.ID,
			"models": []modelOutput{{Model: found.Info.ID}}}, nil)
	}
	return *found, err
}

// findLoggedModel finds the logged model of a run; nil if there is none. Doubles of a call whose answer was lost are
// deleted.
func (m *MLflow) findLoggedModel(ctx context.Context, experiment string, key delivery.Digest) (*loggedModel, error) {
	var found struct {
		Models []loggedModel `json:"models"`
	}
	err := m.post(ctx, "logged-models/search", map[string]any{"experiment_ids": []string{experiment},
		"filter": filter(RunTag, key), "max_results": 50}, &found)
	if err != nil || len(found.Models) == 0 {
		return nil, err
	}
	slices.SortFunc(found.Models, func(a, b loggedModel) int {
		return cmp.Or(cmp.Compare(a.Info.Created, b.Info.Created), cmp.Compare(a.Info.ID, b.Info.ID))
	})
	for _, double := range found.Models[1:] {
		err := m.call(ctx, http.MethodDelete, api+"logged-models/"+url.PathEscape(double.Info.ID), nil, nil)
		if err != nil {
			return nil, err
		}
	}
	return &found.Models[0], nil
}

// endLoggedModel updates tags and status of a logged model.
func (m *MLflow) endLoggedModel(ctx context.Context, r Run, there loggedModel) error {
	path := "logged-models/" + url.PathEscape(there.Info.ID)
	status := modelPending
	tags := map[string]string{RunTag: string(r.Key)}
	switch {
	case r.Bundle != "":
		status, tags[BundleTag] = modelReady, string(r.Bundle)
	case r.Status != Running:
		status = modelFailed
	}
	if fresh := differ(tags, there.Info.Tags); len(fresh) > 0 {
		if err := m.patch(ctx, path+"/tags", map[string]any{"model_id": there.Info.ID, "tags": fresh}); err != nil {
			return err
		}
	}
	// MLflow takes a final status only.
	if status == there.Info.Status || status == modelPending {
		return nil
	}
	return m.patch(ctx, path, map[string]any{"model_id": there.Info.ID, "status": status})
}

// A registered is a registered model as MLflow has it.
type registered struct {
	Note    string `json:"description"`
	Aliases []struct {
		Alias   string `json:"alias"`
		Version string `json:"version"`
	} `json:"aliases"`
}

// A trackedVersion is a version of a registered model as MLflow has it.
type trackedVersion struct {
	Number string `json:"version"`
	Source string `json:"source"`
	Tags   []pair `json:"tags"`
}

// ours returns the tags by which AOB finds a version.
func (v trackedVersion) ours() [2]string {
	tags := byKey(v.Tags)
	return [2]string{tags[VersionTag], tags[BundleTag]}
}

func (v Version) ours() [2]string { return [2]string{strconv.Itoa(v.Number), string(v.Bundle)} }

// PutModel makes MLflow's registry show a model: its versions in order, and the alias of what fleets get. Versions that
// others have registered stay as they are.
func (m *MLflow) PutModel(ctx context.Context, want Model) error {
	there, err := m.registered(ctx, want)
	if err != nil {
		return err
	}
	versions, err := m.versions(ctx, want.Name)
	if err != nil {
		return err
	}
	list := slices.Clone(want.Versions)
	if p := want.Production; p != nil {
		is := func(v Version) bool { return v.ours() == p.ours() }
		if !slices.ContainsFunc(list, is) {
			list = append(list, *p) // of the model's former name
		}
	}
	for _, v := range list {
		old, ok := versions[v.ours()]
		if !ok {
			if old, err = m.createVersion(ctx, want.Name, v); err != nil {
				return err
			}
			versions[v.ours()] = old
		}
		for _, tag := range differ(v.tags(), old.Tags) {
			err := m.post(ctx, "model-versions/set-tag", map[string]any{"name": want.Name, "version": old.Number,
				"key": tag.Key, "value": tag.Value}, nil)
			if err != nil {
				return err
			}
		}
	}
	return m.alias(ctx, want, there, versions)
}

// tags returns the version's tags with those that are fields.
func (v Version) tags() map[string]string {
	tags := map[string]string{VersionTag: strconv.Itoa(v.Number), BundleTag: string(v.Bundle)}
	maps.Copy(tags, v.Tags)
	return tags
}

// registered returns the registered model, and makes it if there is none.
func (m *MLflow) registered(ctx context.Context, want Model) (registered, error) {
	var found struct {
		Model registered `json:"registered_model"`
	}
	query := url.Values{"name": {want.Name}}
	err := m.get(ctx, "registered-models/get", query, &found)
	if is(err, missing) {
		err = m.post(ctx, "registered-models/create", map[string]any{"name": want.Name, "description": want.Note},
			&found)
		if is(err, exists) {
			err = m.get(ctx, "registered-models/get", query, &found)
		}
	}
	if err == nil && found.Model.Note == "" && want.Note != "" {
		err = m.patch(ctx, "registered-models/update", map[string]any{"name": want.Name, "description": want.Note})
	}
	return found.Model, err
}

// maxPages bounds the list of a model's versions. A page has a thousand.
const maxPages = 20

// versions returns AOB's versions of a registered model. Doubles of a call whose answer was lost are deleted.
func (m *MLflow) versions(ctx context.Context, name string) (map[[2]string]trackedVersion, error) {
	var list []trackedVersion
	for token, pages := "", 0; ; pages++ {
		if pages == maxPages {
			return nil, Refused{Text: fmt.Sprintf("%s lists the versions of %s on more than %d pages", m.settings.URL,
				name, maxPages)}
		}
		var page struct {
			Versions []trackedVersion `json:"model_versions"`
			Next     string           `json:"next_page_token"`
		}
		err := m.get(ctx, "model-versions/search", url.Values{"filter": {fmt.Sprintf("name='%s'", name)},
			"max_results": {"1000"}, "page_token": {token}}, &page)
		if err != nil {
			return nil, err
		}
		list = append(list, page.Versions...)
		if page.Next == "" || page.Next == token || len(page.Versions) == 0 {
			break
		}
		token = page.Next
	}
	number := func(v trackedVersion) int { n, _ := strconv.Atoi(v.Number); return n }
	slices.SortFunc(list, func(a, b trackedVersion) int { return number(a) - number(b) })
	found := map[[2]string]trackedVersion{}
	for _, v := range list {
		key := v.ours()
		if key[0] == "" || key[1] == "" {
			continue
		}
		if _, double := found[key]; double {
			err := m.call(ctx, http.MethodDelete, api+"model-versions/delete", map[string]any{"name": name,
				"version": v.Number}, nil)
			if err != nil {
				return nil, err
			}
			continue
		}
		found[key] = v
	}
	return found, nil
}

// createVersion registers a release, with its run if MLflow has it.
func (m *MLflow) createVersion(ctx context.Context, name string, v Version) (trackedVersion, error) {
	create := map[string]any{"name": name, "source": v.Source, "description": v.Note, "tags": differ(v.tags(), nil)}
	if v.Run != "" && v.Experiment != "" {
		experiment, err := m.experiment(ctx, v.Experiment)
		if err != nil {
			return trackedVersion{}, err
		}
		run, err := m.findRun(ctx, experiment, v.Run)
		if err != nil {
			return trackedVersion{}, err
		}
		if run != nil && run.Info.Stage != deletedStage {
			create["run_id"] = run.Info.ID
			model, err := m.findLoggedModel(ctx, experiment, v.Run)
			if err != nil {
				return trackedVersion{}, err
			}
			if model != nil {
				create["model_id"] = model.Info.ID
			}
		}
	}
	var made struct {
		Version trackedVersion `json:"model_version"`
	}
	err := m.post(ctx, "model-versions/create", create, &made)
	return made.Version, err
}

// alias moves the alias to the version that fleets get. It is removed if there is none.
func (m *MLflow) alias(ctx context.Context, want Model, there registered,
	versions map[[2]string]trackedVersion) error {
	at := ""
	for _, a := range there.Aliases {
		if a.Alias == Alias {
			at = a.Version
		}
	}
	body := map[string]any{"name": want.Name, "alias": Alias}
	switch {
	case want.Production == nil && at == "":
		return nil
	case want.Production == nil:
		return m.call(ctx, http.MethodDelete, api+"registered-models/alias", body, nil)
	}
	to := versions[want.Production.ours()].Number
	if to == at {
		return nil
	}
	body["version"] = to
	return m.post(ctx, "registered-models/alias", body, nil)
}
