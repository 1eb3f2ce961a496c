package track

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A pair is a tag or a parameter.
type pair struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// A metric is a figure of a run at a step.
type metric struct {
	Key       string `json:"key"`
	Value     number `json:"value"`
	Timestamp int64  `json:"timestamp"` // milliseconds
	Step      int64  `json:"step"`

	Model         string `json:"model_id,omitempty"`
	DatasetName   string `json:"dataset_name,omitempty"`
	DatasetDigest string `json:"dataset_digest,omitempty"`
}

// A number is written as text if JSON has no such number.
type number float64

// MarshalJSON implements json.Marshaler.
func (n number) MarshalJSON() ([]byte, error) {
	f := float64(n)
	switch {
	case math.IsNaN(f):
		return []byte(`"NaN"`), nil
	case math.IsInf(f, 0):
		return fmt.Appendf(nil, "%q", strings.TrimPrefix(strconv.FormatFloat(f, 'g', -1, 64), "+")+"inity"), nil
	}
	return json.Marshal(f)
}

// UnmarshalJSON implements json.Unmarshaler.
func (n *number) UnmarshalJSON(data []byte) error {
	f, err := strconv.ParseFloat(strings.Trim(string(data), `"`), 64)
	*n = number(f)
	return err
}

// same reports whether MLflow has a value. It stores infinity as the largest number.
func (n number) same(there number) bool {
	a, b := float64(n), float64(there)
	return a == b || math.IsNaN(a) && math.IsNaN(b) ||
		math.IsInf(a, 0) && math.Abs(b) == math.MaxFloat64 && math.Signbit(a) == math.Signbit(b)
}

// A trackedRun is a run as MLflow has it.
type trackedRun struct {
	Info struct {
		ID     string `json:"run_id"`
		Name   string `json:"run_name"`
		Status Status `json:"status"`
		End    int64  `json:"end_time"`
		Stage  string `json:"lifecycle_stage"`
	} `json:"info"`
	Data struct {
		Metrics []metric `json:"metrics"` // the last of each key
		Params  []pair   `json:"params"`
		Tags    []pair   `json:"tags"`
	} `json:"data"`
	Inputs struct {
		Datasets []datasetInput `json:"dataset_inputs"`
	} `json:"inputs"`
	Outputs struct {
		Models []modelOutput `json:"model_outputs"`
	} `json:"outputs"`
}

type datasetInput struct {
	Tags    []pair        `json:"tags"`
	Dataset mlflowDataset `json:"dataset"`
}

type mlflowDataset struct {
	Name       string `json:"name"`
	Digest     string `json:"digest"`
	SourceType string `json:"source_type"`
	Source     string `json:"source"`
	Profile    string `json:"profile,omitempty"`
}

type modelOutput struct {
	Model string `json:"model_id"`
	Step  int64  `json:"step"`
}

const deletedStage = "deleted"

// PutRun makes MLflow show a run, with the epochs that its trainer has reported so far. A run that somebody has deleted
// in MLflow stays deleted.
func (m *MLflow) PutRun(ctx context.Context, r Run, epochs []Epoch) error {
	experiment, err := m.experiment(ctx, r.Experiment)
	if err != nil {
		return err
	}
	there, err := m.findRun(ctx, experiment, r.Key)
	if err != nil {
		return err
	}
	if there == nil {
		if there, err = m.createRun(ctx, experiment, r); err != nil {
			return err
		}
	}
	if there.Info.Stage == deletedStage {
		return nil
	}
	// A search does not return all that a run has.
	var full struct {
		Run trackedRun `json:"run"`
	}
	if err := m.get(ctx, "runs/get", url.Values{"run_id": {there.Info.ID}}, &full); err != nil {
		return err
	}
	model, err := m.loggedModel(ctx, experiment, r, full.Run)
	if err != nil {
		return err
	}
	if err := m.logInputs(ctx, r, full.Run); err != nil {
		return err
	}
	if err := m.logBatches(ctx, full.Run, r, m.newMetrics(full.Run, r, epochs, model.Info.ID)); err != nil {
		return err
	}
	if err := m.endLoggedModel(ctx, r, model); err != nil {
		return err
	}
	return m.endRun(ctx, r, full.Run)
}

// experiment returns the id of an experiment, and makes it if there is none.
func (m *MLflow) experiment(ctx context.Context, name string) (id string, err error) {
	var found struct {
		Experiment struct {
			ID    string `json:"experiment_id"`
			Stage string `json:"lifecycle_stage"`
		} `json:"experiment"`
	}
	query := url.Values{"experiment_name": {name}}
	err = m.get(ctx, "experiments/get-by-name", query, &found)
	if is(err, missing) {
		err = m.post(ctx, "experiments/create", map[string]any{"name": name,
			"tags": []pair{{"mlflow.note.content", "Trainings of the model " + name + ", written by AOB."}}}, nil)
		if err == nil || is(err, exists) {
			err = m.get(ctx, "experiments/get-by-name", query, &found)
		}
	}
	if err == nil && found.Experiment.Stage == deletedStage {
		err = delivery.Blockedf("restore it (mlflow experiments restore), or delete it for good (mlflow gc)",
			"the experiment %s is deleted in MLflow", name)
	}
	return found.Experiment.ID, err
}

// filter returns a filter for a tag.
func filter(tag string, value delivery.Digest) string {
	return fmt.Sprintf("tags.`%s` = '%s'", tag, value)
}

// findRun finds the run of a key; nil if there is none. If a call was repeated whose answer was lost, there may be
// several: the others are deleted.
func (m *MLflow) findRun(ctx context.Context, experiment string, key delivery.Digest) (*trackedRun, error) {
	var found struct {
		Runs []trackedRun `json:"runs"`
	}
	err := m.post(ctx, "runs/search", map[string]any{"experiment_ids": []string{experiment}, "max_results": 100,
		"filter": filter(RunTag, key), "run_view_type": "ALL"}, &found)
	if err != nil || len(found.Runs) == 0 {
		return nil, err
	}
	slices.SortFunc(found.Runs, func(a, b trackedRun) int { // the active ones first
		return cmp.Or(cmp.Compare(a.Info.Stage, b.Info.Stage), cmp.Compare(a.Info.ID, b.Info.ID))
	})
	for _, double := range found.Runs[1:] {
		if double.Info.Stage != deletedStage {
			if err := m.post(ctx, "runs/delete", map[string]any{"run_id": double.Info.ID}, nil); err != nil {
				return nil, err
			}
		}
	}
	return &found.Runs[0], nil
}

func (m *MLflow) createRun(ctx context.Context, experiment string, r Run) (*trackedRun, error) {
	var made struct {
		Run trackedRun `json:"run"`
	}
	err := m.post(ctx, "runs/create", map[string]any{"experiment_id": experiment, "run_name": r.Name,
		"start_time": r.Start.UnixMilli(), "tags": []pair{{RunTag, string(r.Key)}}}, &made)
	return &made.Run, err
}

// logInputs adds the datasets that MLflow does not have yet.
func (m *MLflow) logInputs(ctx context.Context, r Run, there trackedRun) error {
	var fresh []datasetInput
	list := slices.Clone(r.Data)
	for _, of := range r.Measured {
		list = append(list, of.Data)
	}
	for _, d := range list {
		in := inputOf(d)
		same := func(o datasetInput) bool {
			return o.Dataset.Name == in.Dataset.Name && o.Dataset.Digest == in.Dataset.Digest
		}
		if !slices.ContainsFunc(there.Inputs.Datasets, same) && !slices.ContainsFunc(fresh, same) {
			fresh = append(fresh, in)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	return m.post(ctx, "runs/log-inputs", map[string]any{"run_id": there.Info.ID, "datasets": fresh}, nil)
}

func inputOf(d Dataset) datasetInput {
	in := datasetInput{Tags: []pair{{"mlflow.data.context", d.Context}, {"aob.digest", string(d.Digest)}},
		Dataset: mlflowDataset{Name: delivery.Cut(d.Name, maxDataName), Digest: shortDigest(d.Digest),
			SourceType: "aob",
			Source:     string(delivery.Canonical(map[string]string{"dataset": d.Name, "digest": string(d.Digest)}))}}
	if len(d.Profile) > 0 {
		in.Dataset.Profile = string(delivery.Canonical(d.Profile))
	}
	return in
}

// trainerMetrics is what the names of the trainer's own figures begin with.
const trainerMetrics = "trainer/"

// newMetrics returns the figures that MLflow does not have: of each name those of later steps, and those that AOB has
// measured with another value.
func (m *MLflow) newMetrics(there trackedRun, r Run, epochs []Epoch, model string) []metric {
	last := map[string]metric{}
	for _, old := range there.Data.Metrics {
		last[old.Key] = old
	}
	now := m.settings.Now()
	end := r.End
	if end.IsZero() {
		end = now
	}
	var list []metric
	var data Dataset
	if len(r.Data) > 0 {
		data = r.Data[0]
	}
	for i, e := range epochs {
		at := r.Start.Add(time.Duration(float64(end.Sub(r.Start)) * float64(i+1) / float64(len(epochs))))
		for _, key := range sortedKeys(e.Values) {
			f := metric{Key: Name(trainerMetrics + key), Value: number(e.Values[key]), Timestamp: at.UnixMilli(),
				Step: e.Step}
			if old, ok := last[f.Key]; !ok || old.Step < f.Step {
				f.Timestamp = max(f.Timestamp, old.Timestamp) // histories are ordered by time
				last[f.Key], list = f, append(list, f.of(model, data))
			}
		}
	}
	for _, of := range r.Measured {
		for _, key := range sortedKeys(of.Values) {
			f := metric{Key: Name(of.Under + "/" + key), Value: number(of.Values[key]), Timestamp: now.UnixMilli()}
			if old, ok := last[f.Key]; !ok || !f.Value.same(old.Value) {
				list = append(list, f.of(model, of.Data))
			}
		}
	}
	return list
}

// of adds the logged model and the dataset that a figure is of.
func (f metric) of(model string, d Dataset) metric {
	f.Model = model
	if d.Digest != "" {
		f.DatasetName, f.DatasetDigest = delivery.Cut(d.Name, maxDataName), shortDigest(d.Digest)
	}
	return f
}

// A batch is what one call may send.
type batch struct {
	Run     string   `json:"run_id"`
	Metrics []metric `json:"metrics,omitempty"`
	Params  []pair   `json:"params,omitempty"`
	Tags    []pair   `json:"tags,omitempty"`
}

// Limits of a batch. MLflow accepts 1000 metrics, 100 params and 100 tags, 1000 in all, and a megabyte.
const (
	maxMetrics = 800
	maxPairs   = 100
	maxBatch   = 900_000
)

// batches divides what is sent.
func batches(run string, metrics []metric, params, tags []pair) []batch {
	var list []batch
	now, size := batch{Run: run}, 0
	end := func() {
		if len(now.Metrics)+len(now.Params)+len(now.Tags) > 0 {
			list = append(list, now)
		}
		now, size = batch{Run: run}, 0
	}
	fits := func(n int) {
		if size+n > maxBatch || len(now.Metrics) == maxMetrics || len(now.Params) == maxPairs ||
			len(now.Tags) == maxPairs {
			end()
		}
		size += n
	}
	length := func(v any) int { text, _ := delivery.EncodeJSON(v); return len(text) }
	for _, p := range params {
		fits(length(p))
		now.Params = append(now.Params, p)
	}
	for _, t := range tags {
		fits(length(t))
		now.Tags = append(now.Tags, t)
	}
	for _, f := range metrics {
		fits(length(f))
		now.Metrics = append(now.Metrics, f)
	}
	end()
	return list
}

// logBatches sends parameters that MLflow does not have, tags that differ, and metrics. Parameters cannot be changed.
func (m *MLflow) logBatches(ctx context.Context, there trackedRun, r Run, metrics []metric) error {
	var params []pair
	have := byKey(there.Data.Params)
	for _, key := range sortedKeys(r.Params) {
		if _, ok := have[Name(key)]; !ok {
			params = append(params, pair{Name(key), delivery.Cut(r.Params[key], maxParam)})
		}
	}
	tags := differ(r.tags(), there.Data.Tags)
	for _, b := range batches(there.Info.ID, metrics, params, tags) {
		if err := m.post(ctx, "runs/log-batch", b, nil); err != nil {
			return err
		}
	}
	return nil
}

// tags returns the run's tags with those that are fields.
func (r Run) tags() map[string]string {
	tags := map[string]string{"mlflow.note.content": r.Note, RunTag: string(r.Key)}
	if r.Bundle != "" {
		tags[BundleTag] = string(r.Bundle)
	}
	maps.Copy(tags, r.Tags)
	return tags
}

// differ returns the tags that MLflow does not have, or has with another value.
func differ(tags map[string]string, there []pair) []pair {
	var list []pair
	have := byKey(there)
	for _, key := range sortedKeys(tags) {
		value := delivery.Cut(tags[key], maxTag)
		if old, ok := have[Name(key)]; !ok && value != "" || ok && old != value {
			list = append(list, pair{Name(key), value})
		}
	}
	return list
}

func byKey(list []pair) map[string]string {
	found := make(map[string]string, len(list))
	for _, p := range list {
		found[p.Key] = p.Value
	}
	return found
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// endRun updates the status, which is last, so that a finished run is complete.
func (m *MLflow) endRun(ctx context.Context, r Run, there trackedRun) error {
	end := int64(0)
	if r.Status != Running {
		end = r.End.UnixMilli()
	}
	if there.Info.Status == r.Status && there.Info.Name == r.Name && (end == 0 || end == there.Info.End) {
		return nil
	}
	update := map[string]any{"run_id": there.Info.ID, "status": r.Status, "run_name": r.Name}
	if end != 0 {
		update["end_time"] = end
	}
	return m.post(ctx, "runs/update", update, nil)
}
