package e2e

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/tools/roboflow/roboflowtest"
)

// TestRoboflow takes a model to green whose dataset is a version of Roboflow. A second version that has the same files,
// exported at another time, trains nothing again. The key is nowhere.
func TestRoboflow(t *testing.T) {
	const key = "rf_s3cr3tK3y"
	n := findPrograms(t)
	made := filepath.Join(t.TempDir(), "shapes")
	script := filepath.Join("..", "trainers", "tiny", "shapes.py")
	out, err := exec.Command(python, script, made, "--train", "24", "--valid", "8", "--test", "24").CombinedOutput()
	if err != nil {
		t.Fatalf("make the dataset: %v: %s", err, out)
	}
	server := roboflowtest.New("acme", key)
	server.Put("shapes", 14, export(t, made, "exported on Monday", false))
	server.Put("shapes", 15, export(t, made, "exported on Tuesday", true))
	server.Queue("/acme/shapes/14", roboflowtest.Generating(0.5))
	server.Queue("/acme/shapes/14/coco", roboflowtest.Exporting(0.4), roboflowtest.JSON(429, `{}`, "Retry-After: 1"))
	at := httptest.NewServer(server)
	defer at.Close()

	version := func(text string, n int) string {
		return strings.ReplaceAll(text, "{dir: shapes}", fmt.Sprintf("{roboflow: acme/shapes/%d}", n))
	}
	gate := version(gateFile("production", "shapes", "ada", "{metric: mAP, min: 0}"), 14)
	w := newWorkshop(t, n, "roboflow", map[string]string{"gates/production.yaml": gate})
	secret := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(secret, []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.start(t, func() string {
		text := fmt.Sprintf(workshopConfiguration, w.address, w.counters, made, filepath.Join(w.bin, "aob-detect"),
			w.library, w.terraform, python)
		return strings.Replace(text, "datasets: {", fmt.Sprintf("secrets: {ROBOFLOW_API_KEY: {file: %q}}\n"+
			"datasets: {roboflow: {acme: %q}, ", secret, at.URL+"/acme"), 1)
	})
	var said []byte
	propose := func(branch string, n int) {
		t.Helper()
		w.clone.git(t, "checkout", "-q", "-B", branch, "origin/main")
		w.clone.commit(t, "Train on another version", map[string]string{
			"models/shapes.yaml": version(shapesModel("shapes", 1), n)})
		w.clone.git(t, "push", "-q", "origin", branch)
		data, err := json.Marshal(w.green(t, branch))
		if err != nil {
			t.Fatal(err)
		}
		said = append(said, data...)
	}
	runs := func(kind string) int {
		list, err := filepath.Glob(w.path("state", "runs", kind+"-*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	propose("first", 14)
	data, trained := runs("data"), runs("train")
	propose("second", 15)
	if runs("data") <= data || runs("train") != trained || trained != 1 {
		t.Errorf("the same files as another version: %d data runs and %d trainings, before %d and %d", runs("data"),
			runs("train"), data, trained)
	}
	exports := 0
	for _, r := range server.Requests() {
		if strings.HasPrefix(r, "GET /storage/") {
			exports++
		}
	}
	if exports != 2 {
		t.Errorf("%d downloads, want one of each version", exports)
	}
	w.stopServer(t)
	if text := string(said); strings.Contains(text, key) {
		t.Error("the API says the key")
	}
	for _, dir := range []string{w.dir, w.logs} {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			text, err := os.ReadFile(path)
			for _, secret := range []string{key, "X-Goog-Signature=5160a7u4e", "api_key="} {
				if bytes.Contains(text, []byte(secret)) && filepath.Dir(path) != w.bin {
					t.Errorf("%s has %q", path, secret)
				}
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// export packs a folder as Roboflow does, with the time of the export in a note.
func export(t *testing.T, dir, note string, backwards bool) []byte {
	t.Helper()
	var names []string
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			names = append(names, name)
		}
		return err
	})
	if backwards {
		slices.Reverse(names)
	}
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	add := func(name string, data []byte) {
		f, cerr := z.Create(name)
		if err == nil {
			err = cerr
		}
		if err == nil {
			_, err = io.Copy(f, bytes.NewReader(data))
		}
	}
	for _, name := range names {
		data, rerr := os.ReadFile(filepath.Join(dir, name))
		if rerr != nil {
			t.Fatal(rerr)
		}
		add(name, data)
	}
	add("README.roboflow.txt", []byte(note))
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
