package work

import (
	"archive/zip"
	"bytes"
	"context"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/dataset"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/run"
	"github.com/autonomos/aob/reconciler/store"
	"github.com/autonomos/aob/tools/roboflow/roboflowtest"
)

// A data run tells how far the fetch of its dataset is. The key is in no file that it leaves and in no log.
func TestFetchOfADataRun(t *testing.T) {
	const key = "rf_s3cr3tK3y"
	var data bytes.Buffer
	z := zip.NewWriter(&data)
	_, err := z.Create("train/" + dataset.AnnotationsFile)
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	folder := run.Folder(filepath.Join(dir, "runs"), delivery.RunData, delivery.Sum(nil))
	status := func() string {
		text, _ := os.ReadFile(filepath.Join(folder, "output", "status.json"))
		return string(text)
	}
	server := roboflowtest.New("acme", key)
	server.Put("pallets", 14, data.Bytes())
	var seen []string
	look := func(answer http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			seen = append(seen, status())
			answer(w, r)
		}
	}
	const export = "/acme/pallets/14/coco"
	server.Queue(export, look(roboflowtest.Exporting(0.4)), look(roboflowtest.Answer(401, "text/plain",
		"bad key "+key)))
	at := httptest.NewServer(server)
	defer at.Close()

	var log bytes.Buffer
	stages := Stages{Files: store.Folder(dir), Log: slog.New(slog.NewTextHandler(&log, nil)),
		Secrets: map[string]string{dataset.RoboflowKey: key},
		Datasets: dataset.Catalog{Sources: map[string]dataset.Source{"roboflow": dataset.Roboflow{}},
			Locations: map[string]map[string]string{"roboflow": {"acme": at.URL + "/acme"}},
			Cache:     filepath.Join(dir, "datasets"), Secret: func(string) (string, error) { return key, nil }}}
	spec := delivery.RunSpec{Kind: delivery.RunData, Key: delivery.Sum(nil), Data: &delivery.DataRun{
		Dataset: delivery.Dataset{Source: "roboflow", Path: "acme/pallets/14"}}}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "spec.json"), delivery.Canonical(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	do := func() error {
		r, err := run.Open(folder)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		return r.Do(t.Context(), func(ctx context.Context) (any, error) { return stages.Work(ctx, r) })
	}
	if err := do(); err == nil || !strings.Contains(err.Error(), "Roboflow refuses the server's key (status 401: bad "+
		"key ***)") {
		t.Errorf("error: %v", err)
	}
	if len(seen) != 2 || !strings.Contains(seen[1], `"message":"exporting 40 %"`) {
		t.Errorf("status.json was %q", seen)
	}
	// What the run left is read after the error, and after it has its data.
	search(t, dir, log.String(), key)
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "spec.json"), delivery.Canonical(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := do(); err != nil {
		t.Error(err)
	}
	search(t, dir, log.String(), key)
}

// search looks for the key, and for the signature of the link, in all files of a folder and in the log.
func search(t *testing.T, dir, log, key string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		files++
		for _, secret := range []string{key, "5160a7u4e"} {
			if strings.Contains(string(data)+path, secret) {
				t.Errorf("%s has %q", path, secret)
			}
		}
		return err
	})
	if err != nil || files < 3 {
		t.Errorf("%d files were searched: %v", files, err)
	}
	if strings.Contains(log, key) {
		t.Errorf("the log has the key: %s", log)
	}
}
