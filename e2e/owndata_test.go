package e2e

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestOwnData runs every command of docs/own-data.md, in its order, with images that were labelled in CVAT: the first
// pull request turns green, and what it releases can be pulled.
func TestOwnData(t *testing.T) {
	n := findPrograms(t)
	dir, err := os.MkdirTemp("", "aob-own-") // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Symlink(n.bin, filepath.Join(dir, "bin")); err != nil {
		t.Fatal(err)
	}
	labelInCVAT(t, filepath.Join(dir, "pallets"))
	env := append(os.Environ(), "XDG_CACHE_HOME="+filepath.Join(dir, "cache"), "AOB_ONNXRUNTIME="+n.library)
	shell := func(line string) *exec.Cmd {
		cmd := exec.Command("/bin/sh", "-ec", line)
		cmd.Dir, cmd.Env = dir, env
		return cmd
	}
	do := func(line string) string {
		t.Helper()
		out, err := shell(line).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
		return string(out)
	}
	page, err := os.ReadFile(filepath.Join("..", "docs", "own-data.md"))
	if err != nil {
		t.Fatal(err)
	}
	pulled := false
	for line := range strings.Lines(string(page)) {
		command, indented := strings.CutPrefix(line, "    ")
		command, _, _ = strings.Cut(command, " #")
		command = strings.TrimSpace(command)
		word, rest, _ := strings.Cut(command, " ")
		switch {
		case !indented:
		case word == "make": // make itself is running this
		case word == "export":
			env = append(env, rest)
		case strings.HasPrefix(command, "bin/aob serve"):
			server := shell("exec " + command)
			if err := server.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				_ = server.Process.Signal(syscall.SIGTERM)
				if err := server.Wait(); err != nil {
					t.Error(err)
				}
			})
			waitFor(t, func() bool { return shell("bin/aob status --socket world/state/aob.sock").Run() == nil })
		case strings.HasPrefix(command, "bin/aob pr show"):
			tick := time.NewTicker(time.Second)
			for began := time.Now(); ; <-tick.C {
				said := do(command)
				if strings.Contains(said, "success  aob/release") {
					break
				}
				if strings.Contains(said, "failure ") || time.Since(began) > 15*time.Minute {
					t.Fatalf("the first check is not green:\n%s", said)
				}
			}
		case strings.HasPrefix(command, "bin/aob bundle pull"):
			waitFor(t, func() bool { return strings.Contains(do("bin/aob status"), "version 1") })
			do(command)
			_, err := os.Stat(filepath.Join(dir, "first-version", "model.onnx"))
			pulled = err == nil
		default:
			do(command)
			if strings.HasPrefix(command, "bin/aob init") {
				freePort(t, filepath.Join(dir, "world", "aob.yaml"))
			}
		}
	}
	if !pulled {
		t.Error("the page pulls no model")
	}
}

// labelInCVAT writes images with labels as CVAT exports them, "CVAT for images 1.1".
func labelInCVAT(t *testing.T, dir string) {
	t.Helper()
	made := filepath.Join(t.TempDir(), "shapes")
	script := filepath.Join("..", "trainers", "tiny", "shapes.py")
	if out, err := exec.Command(python, script, made, "--train", "144", "--valid", "8", "--test", "8").
		CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data, err := os.ReadFile(filepath.Join(made, "train", "_annotations.coco.json"))
	if err != nil {
		t.Fatal(err)
	}
	var coco struct {
		Categories []struct {
			ID   int
			Name string
		}
		Images []struct {
			ID            int
			Width, Height int
			Name          string `json:"file_name"`
		}
		Annotations []struct {
			Image    int        `json:"image_id"`
			Category int        `json:"category_id"`
			Box      [4]float64 `json:"bbox"`
		}
	}
	if err := json.Unmarshal(data, &coco); err != nil {
		t.Fatal(err)
	}
	label := map[int]string{}
	for _, c := range coco.Categories {
		label[c.ID] = c.Name
	}
	type box struct {
		Label string  `xml:"label,attr"`
		Left  float64 `xml:"xtl,attr"`
		Top   float64 `xml:"ytl,attr"`
		Right float64 `xml:"xbr,attr"`
		Foot  float64 `xml:"ybr,attr"`
	}
	type image struct {
		ID     int    `xml:"id,attr"`
		Name   string `xml:"name,attr"`
		Width  int    `xml:"width,attr"`
		Height int    `xml:"height,attr"`
		Boxes  []box  `xml:"box"`
	}
	var export struct {
		XMLName xml.Name `xml:"annotations"`
		Version string   `xml:"version"`
		Images  []image  `xml:"image"`
	}
	export.Version = "1.1"
	if err := os.MkdirAll(filepath.Join(dir, "images"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, im := range coco.Images {
		out := image{ID: im.ID, Name: im.Name, Width: im.Width, Height: im.Height}
		for _, a := range coco.Annotations {
			if b := a.Box; a.Image == im.ID {
				out.Boxes = append(out.Boxes, box{label[a.Category], b[0], b[1], b[0] + b[2], b[1] + b[3]})
			}
		}
		export.Images = append(export.Images, out)
		if err := os.Rename(filepath.Join(made, "train", im.Name), filepath.Join(dir, "images", im.Name)); err != nil {
			t.Fatal(err)
		}
	}
	text, err := xml.MarshalIndent(export, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "annotations.xml"), fmt.Appendf(nil, "%s%s\n", xml.Header, text), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}
