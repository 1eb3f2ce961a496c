package e2e

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestOwnData runs every command of docs/own-data.md, in its order, with images that were labelled in CVAT: the first
// pull request turns green, and what it releases can be pulled.
func TestOwnData(t *testing.T) {
	n := findPrograms(t)
	p := newFolder(t, n)
	labelInCVAT(t, p.path("pallets"))
	p.env = append(p.env, "XDG_CACHE_HOME="+p.path("cache"))
	pulled := false
	for _, step := range parts(t, "own-data.md") {
		command := step.command
		word, rest, _ := strings.Cut(command, " ")
		switch {
		case word == "make": // make itself is running this
		case word == "export":
			p.env = append(p.env, rest)
		case strings.HasPrefix(command, "bin/aob serve"):
			p.serve(t, command)
		case strings.HasPrefix(command, "bin/aob pr show"):
			tick := time.NewTicker(time.Second)
			for began := time.Now(); ; <-tick.C {
				said := p.do(t, command)
				if strings.Contains(said, "success  aob/release") {
					break
				}
				if strings.Contains(said, "failure ") || time.Since(began) > 15*time.Minute {
					t.Fatalf("the first check is not green:\n%s", said)
				}
			}
		case strings.HasPrefix(command, "bin/aob bundle pull"):
			waitFor(t, func() bool { return strings.Contains(p.do(t, "bin/aob status"), "version 1") })
			p.do(t, command)
			_, err := os.Stat(p.path("first-version", "model.onnx"))
			pulled = err == nil
		default:
			p.do(t, command)
			if strings.HasPrefix(command, "bin/aob init") {
				freePort(t, p.path("world", "aob.yaml"))
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
