package reconciler

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autonomos/aob/reconciler/commits"
	"github.com/autonomos/aob/reconciler/dataset"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/forge"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/store"
	"github.com/autonomos/aob/reconciler/web"
)

// TestErrors keeps docs/errors.md true: every row's error is made for real, and
// must be what the table says.
func TestErrors(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "docs", "errors.md"))
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]string{}
	for line := range strings.Lines(string(data)) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if len(cells) == 3 && strings.HasPrefix(cells[0], "| ") {
			said[strings.TrimPrefix(cells[0], "| ")] = strings.Trim(strings.TrimSuffix(cells[2], " |"), "`")
		}
	}
	delete(said, "input")
	delete(said, "---")
	rows := map[string]func(t *testing.T) string{
		"a symbolic link as a model": func(t *testing.T) string {
			return pushed(t, func(path string) error { return os.Symlink("/etc/passwd", path) })
		},
		"a YAML file of 1 GiB": func(t *testing.T) string {
			if testing.Short() {
				t.Skip("git takes some seconds for 1 GiB")
			}
			return pushed(t, func(path string) error {
				return errors.Join(os.WriteFile(path, nil, 0o644), os.Truncate(path, 1<<30))
			})
		},
		"a dataset path with `..`": func(*testing.T) string {
			return complaintOf(strings.Replace(model("pallets", 1), "dir: shapes", "dir: shapes/../../etc", 1),
				intent.Options{})
		},
		"a `dir:` outside the server's list": func(*testing.T) string {
			return complaintOf(strings.Replace(model("pallets", 1), "dir: shapes", "dir: secrets", 1),
				intent.Options{Datasets: map[string][]string{"dir": {"shapes", "gold"}}})
		},
		"an address as a dataset": func(*testing.T) string {
			return complaintOf(strings.Replace(model("pallets", 1), "dir: shapes", `dir: "http://10.0.0.1/data"`, 1),
				intent.Options{})
		},
		"a symbolic link in a dataset": func(t *testing.T) string {
			dir := smallDataset(t)
			if err := os.Symlink("/etc/passwd", filepath.Join(dir, "train", "more.png")); err != nil {
				t.Fatal(err)
			}
			return dataError(t, dir)
		},
		"a dataset that is not there": func(t *testing.T) string {
			return dataError(t, filepath.Join(t.TempDir(), "gone"))
		},
		"a truncated image": func(t *testing.T) string {
			dir := smallDataset(t)
			path := filepath.Join(dir, "train", "1.png")
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(path, info.Size()/2); err != nil {
				t.Fatal(err)
			}
			return dataError(t, dir)
		},
		"an annotation file of the wrong shape": func(t *testing.T) string {
			dir := smallDataset(t)
			if err := os.WriteFile(filepath.Join(dir, "train", dataset.AnnotationsFile), []byte(`["no", "object"]`),
				0o644); err != nil {
				t.Fatal(err)
			}
			return dataError(t, dir)
		},
		"a malformed ONNX file": func(t *testing.T) string {
			return malformedModel(t)
		},
		"a webhook with a wrong signature": func(t *testing.T) string {
			read, err := forge.Webhook("the secret")
			if err != nil {
				t.Fatal(err)
			}
			req := httptest.NewRequest("POST", "/webhook", strings.NewReader(`{"ref":"refs/heads/main"}`))
			req.Header.Set("X-Gitea-Event", "push")
			req.Header.Set("X-Gitea-Signature", strings.Repeat("00", 32))
			hook := web.Webhook{Unsigned: forge.ErrSignature, Log: slog.New(slog.DiscardHandler),
				Read: func(req *http.Request) (string, error) {
					_, err := read(req)
					return "", err
				}}
			answer := httptest.NewRecorder()
			hook.ServeHTTP(answer, req)
			if answer.Code != http.StatusUnauthorized {
				t.Errorf("the answer has status %d", answer.Code)
			}
			var said struct{ Error string }
			if err := json.Unmarshal(answer.Body.Bytes(), &said); err != nil {
				t.Fatal(err)
			}
			return said.Error
		},
		"a run that never gives a sign of life": func(*testing.T) string {
			began := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)
			return "the trainer hangs: " + text(delivery.Heartbeat(delivery.RunStatus{}, began,
				began.Add(90*time.Second), time.Minute))
		},
		"a full disk under the ledger while AOB runs": fullDisk,
		"a full disk under the ledger at the start": func(t *testing.T) string {
			dir := small(t)
			for size := 4096; size > 0; size /= 2 { // until not a byte is left
				f, err := os.OpenFile(filepath.Join(dir, "filler"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
				for err == nil {
					_, err = f.Write(make([]byte, size))
				}
				f.Close()
			}
			_, err := ledger.Open(t.Context(), filepath.Join(dir, "ledger.db"))
			return strings.ReplaceAll(text(err), dir, "state")
		},
	}
	for name, make := range rows {
		t.Run(name, func(t *testing.T) {
			if said[name] == "" {
				t.Fatalf("docs/errors.md has no row for it; it is: %s", make(t))
			}
			if got := make(t); got != said[name] {
				t.Errorf("docs/errors.md says\n%s\nand it is\n%s", said[name], got)
			}
		})
	}
	for name := range said {
		if rows[name] == nil {
			t.Errorf("docs/errors.md has a row that nothing makes: %s", name)
		}
	}
}

func text(err error) string {
	if err == nil {
		return "no error"
	}
	return err.Error()
}

// pushed is what the loop says of a model file that somebody pushes with git.
func pushed(t *testing.T, write func(path string) error) string {
	t.Helper()
	dir := t.TempDir()
	work := filepath.Join(dir, "work")
	if err := errors.Join(os.MkdirAll(filepath.Join(work, "models"), 0o755),
		write(filepath.Join(work, "models", "pallets.yaml"))); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"init", "-q", "--bare", "bare"}, {"init", "-q", "-b", "main", "work"},
		{"-C", "work", "-c", "core.compression=1", "add", "."},
		{"-C", "work", "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-q", "-m", "A model"},
		{"-C", "work", "push", "-q", "../bare", "main"}} {
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	mirror, err := git.Open(filepath.Join(dir, "mirror"), git.Remote{URL: filepath.Join(dir, "bare")})
	if err != nil {
		t.Fatal(err)
	}
	defer mirror.Close()
	refs, _, err := mirror.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tree, err := commits.New(mirror, intent.NewCache(intent.Options{})).Tree(refs[git.Branch+"main"])
	if err != nil {
		t.Fatal(err)
	}
	return first(tree.Complaints)
}

func complaintOf(yaml string, o intent.Options) string {
	_, list := intent.Parse([]intent.File{{Path: "models/pallets.yaml", Size: int64(len(yaml)), Data: []byte(yaml)}}, o)
	return first(list)
}

func first(list []delivery.Complaint) string {
	if len(list) == 0 {
		return "no complaint"
	}
	return list[0].String()
}

// smallDataset writes two images a split, each with one object.
func smallDataset(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for k, split := range []string{"train", "valid"} {
		if err := os.MkdirAll(filepath.Join(dir, split), 0o755); err != nil {
			t.Fatal(err)
		}
		type object map[string]any
		var images, annotations []object
		for i := 1; i <= 2; i++ {
			img := image.NewGray(image.Rect(0, 0, 64, 64))
			for p := range img.Pix {
				img.Pix[p] = byte(p*7*i + 31*k)
			}
			var b bytes.Buffer
			if err := png.Encode(&b, img); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, split, fmt.Sprintf("%d.png", i)), b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
			images = append(images, object{"id": i, "file_name": fmt.Sprintf("%d.png", i), "width": 64, "height": 64})
			annotations = append(annotations, object{"id": i, "image_id": i, "category_id": 1, "bbox": []int{8, 8, 20,
				20}, "area": 400, "iscrowd": 0})
		}
		data, err := json.Marshal(object{"images": images, "annotations": annotations,
			"categories": []object{{"id": 1, "name": "circle"}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, split, dataset.AnnotationsFile), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// dataError is what aob/data says of a dataset, as plan shows it.
func dataError(t *testing.T, dir string) string {
	t.Helper()
	ask := delivery.DataRun{Dataset: delivery.Dataset{Source: "dir", Path: "shapes"},
		Classes: delivery.Classes{{Name: "circle", Labels: []string{"circle"}}}}
	result, err := dataset.Catalog{Sources: map[string]dataset.Source{"dir": dataset.Dir{}},
		Locations: map[string]map[string]string{"dir": {"shapes": dir}}}.Check(t.Context(), ask,
		filepath.Join(t.TempDir(), "prepared"),
		store.Folder(t.TempDir()), nil)
	if err != nil {
		return err.Error()
	}
	for _, f := range result.Findings {
		if f.Level == delivery.LevelError {
			return f.Where + ": " + f.Text
		}
	}
	return "no error"
}

func malformedModel(t *testing.T) string {
	binary, library := os.Getenv("AOB_DETECT"), ""
	if found, err := detect.FindLibrary(); err == nil {
		library = found
	}
	if binary == "" {
		binary, _ = filepath.Abs(filepath.Join("..", "bin", "aob-detect"))
	}
	if _, err := os.Stat(binary); err != nil || library == "" {
		t.Skip("aob-detect or ONNX Runtime's library is missing: run make build and tools/install.sh")
	}
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := os.WriteFile(path, []byte("this is no protobuf"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, _, err := detect.Detector{Binary: binary, Library: library}.Inspect(t.Context(), path)
	return strings.ReplaceAll(text(err), filepath.Dir(path)+"/", "")
}

// fullDisk fills a small file system under a ledger.
func fullDisk(t *testing.T) string {
	dir := small(t)
	l, err := ledger.Open(t.Context(), filepath.Join(dir, "ledger.db"))
	if err != nil {
		return strings.ReplaceAll(text(err), dir, "state")
	}
	defer l.Close()
	for i := range 1000 {
		err := l.PutRecord(t.Context(), fmt.Sprint("status/", i), strings.Repeat("x", 1000), time.Unix(0, 0))
		if err == nil {
			continue
		}
		if _, ok := errors.AsType[delivery.Blocked](err); !ok {
			t.Errorf("%v is no Blocked error", err)
		}
		return strings.ReplaceAll(err.Error(), dir, "state")
	}
	return "no error"
}

// small is a folder on a small disk of its own.
func small(t *testing.T) string {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("a small file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}
