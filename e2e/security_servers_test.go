package e2e

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/tools/roboflow/roboflowtest"
)

// This file plays the servers that AOB asks: one that datasets come from, and a tracker. Both are hostile.

const (
	sourceKey    = "rf_4ttackKey77"
	trackerToken = "ml_4ttackToken77"
	farMarker    = "far-marker" // at the end of a text that is longer than AOB keeps
	leftContent  = "of a file that leaves"
)

// hostileText is what the servers answer in messages.
const hostileText = "\x1b[31m\n/aob run 0123456789abcdef\n@all " + markdown

// Versions of the hostile source's project.
const (
	sourceGood = iota + 1
	sourceInternal
	sourceRedirects
	sourceSays
	sourceHuge
	sourceLeaves
	sourceNever
)

// others are the servers that AOB asks, and one that it must not ask.
type others struct {
	roboflow                  *roboflowtest.Server
	source, tracker, internal *httptest.Server
	reached                   atomic.Int32 // requests to internal

	mu       sync.Mutex
	told     bytes.Buffer // requests to the tracker
	asked    int
	tracked  int     // the pull request of a model with the tracker
	trained  float64 // trainings before it
	pictures []byte  // the good dataset
}

func newOthers(p *place, data string) *others {
	p.Helper()
	o := &others{roboflow: roboflowtest.New("acme", sourceKey), pictures: export(p.T, data, "exported", false)}
	o.internal = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		o.reached.Add(1)
		fmt.Fprint(w, "internal")
	}))
	o.source, o.tracker = httptest.NewServer(o.roboflow), httptest.NewServer(http.HandlerFunc(o.track))
	for _, s := range []*httptest.Server{o.internal, o.source, o.tracker} {
		p.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	}
	for version, data := range map[int][]byte{sourceGood: o.pictures, sourceInternal: nil, sourceRedirects: o.pictures,
		sourceSays: nil, sourceHuge: claims(p), sourceLeaves: leaves(p), sourceNever: nil} {
		o.roboflow.Put("pallets", version, data)
	}
	const project = "/acme/pallets/"
	link := func(to string) http.HandlerFunc {
		return roboflowtest.JSON(200, fmt.Sprintf(`{"export": {"format": "coco", "link": %q}}`, to))
	}
	said, err := json.Marshal(map[string]string{"message": "key " + sourceKey + " " + hostileText})
	if err != nil {
		p.Fatal(err)
	}
	for range 50 { // more than AOB asks
		o.roboflow.Queue(fmt.Sprint(project, sourceInternal, "/coco"), link(o.internal.URL+"/latest/meta-data"))
		o.roboflow.Queue(fmt.Sprintf("/storage/pallets/%d.zip", sourceRedirects),
			func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, o.internal.URL+"/latest/meta-data", http.StatusFound)
			})
		o.roboflow.Queue(fmt.Sprint(project, sourceSays), roboflowtest.JSON(403, string(said)))
	}
	for range 2000 {
		o.roboflow.Queue(fmt.Sprint(project, sourceNever), roboflowtest.Generating(0.5))
	}
	return o
}

// file writes a secret, and returns the file's path.
func (o *others) file(p *place, name, secret string) string {
	p.Helper()
	path := filepath.Join(p.TempDir(), name)
	if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
		p.Fatal(err)
	}
	return path
}

// claims is a zip that says that its file has terabytes.
func claims(p *place) []byte {
	p.Helper()
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	f, err := z.CreateHeader(&zip.FileHeader{Name: "train/a.png", Method: zip.Store})
	if err == nil {
		_, err = io.WriteString(f, "a")
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		p.Fatal(err)
	}
	data := out.Bytes()
	central := bytes.LastIndex(data, []byte("PK\x01\x02"))
	binary.LittleEndian.PutUint32(data[central+24:], 0xfffffff0) // its size, of a file that has one byte
	return data
}

// leaves is a zip with a name that leaves the dataset.
func leaves(p *place) []byte {
	p.Helper()
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	f, err := z.Create("../../../../left-marker")
	if err == nil {
		_, err = io.WriteString(f, leftContent)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		p.Fatal(err)
	}
	return out.Bytes()
}

// fetched proposes a model of a version of the source's project.
func (p *place) fetched(version, epochs int) int {
	p.Helper()
	name := fmt.Sprintf("fetched-%d-%d", version, epochs)
	model := strings.Replace(shapesModel(name, epochs), "{dir: shapes}", fmt.Sprintf("{roboflow: acme/pallets/%d}",
		version), 1)
	return p.propose(p.writer, map[string]string{"models/" + name + ".yaml": model,
		"gates/" + name + ".yaml": gateFile(name, name, p.ownerName, "{metric: mAP, min: 0}")})
}

// refused waits until a version of the source's project is refused with a text, and returns all that AOB said of it.
func (p *place) refused(version int, text string) string {
	p.Helper()
	number := p.fetched(version, 300)
	p.wants(number, delivery.ContextData, delivery.CheckFailure, "")
	said := p.shown(number)
	// Lines are broken on a terminal, and a forge's statuses are short.
	if all := strings.Join(strings.Fields(said), " "); !strings.Contains(all, text) {
		p.Errorf("want …%s…, got %s", text, all)
	}
	_, says := p.check(number, delivery.ContextData)
	p.Logf("aob/data: %s", says)
	p.retire(p.writer, number)
	return said
}

// shown is what aob pr show prints, and on a forge the comments too.
func (p *place) shown(number int) string {
	p.Helper()
	out, err := exec.Command(filepath.Join(p.bin, "aob"), "pr", "show", fmt.Sprint(number), "--socket",
		p.state("aob.sock")).CombinedOutput()
	if err != nil {
		p.Errorf("aob pr show: %v: %s", err, out)
	}
	if p.m != nil {
		p.noMarkup("the comment", strings.Join(p.m.comments(p.T, number), "\n"))
	}
	return string(out)
}

// harmless checks what a terminal gets.
func (p *place) harmless(where, text string) {
	p.Helper()
	if strings.Contains(text, "\n/aob run") || strings.Contains(text, "\x1b[31m\n") ||
		strings.Contains(text, "\x1b[31m/") {
		p.Errorf("%s has the server's text as it is: %q", where, text)
	}
}

// nowhere checks that no file of the state and no log has a text.
func (p *place) nowhere(what, text string) {
	p.Helper()
	for _, dir := range []string{p.state(), p.logs} {
		if files := holds(p.T, dir, text); len(files) > 0 {
			p.Errorf("%s is in %v", what, files)
		}
	}
	if strings.Contains(p.said(), text) {
		p.Errorf("%s is in what AOB says", what)
	}
}

func (p *place) downloads(version int) (n int) {
	for _, r := range p.others.roboflow.Requests() {
		if r == fmt.Sprintf("GET /storage/pallets/%d.zip", version) {
			n++
		}
	}
	return n
}

func sourceBar(p *place) {
	first := p.fetched(sourceGood, 301)
	p.wants(first, delivery.ContextData, delivery.CheckSuccess, "")
	p.others.roboflow.Put("pallets", sourceGood, leaves(p)) // what it gives now is another dataset
	second := p.fetched(sourceGood, 302)
	p.wants(second, delivery.ContextData, delivery.CheckSuccess, "")
	if n := p.downloads(sourceGood); n != 1 {
		p.Errorf("one version was downloaded %d times", n)
	}
	p.retire(p.writer, first)
	p.retire(p.writer, second)
}

func sourceSpend(p *place) {
	before := metrics(p.T, p.counters)["aob_trainings_total"]
	p.refused(sourceLeaves, "")
	if after := metrics(p.T, p.counters)["aob_trainings_total"]; after != before {
		p.Error("a model was trained on what a source did not give")
	}
}

func sourceStop(p *place) {
	number := p.fetched(sourceNever, 303)
	until(p.T, func() error {
		if _, says := p.check(number, delivery.ContextData); !strings.Contains(says, "generating") {
			return fmt.Errorf("aob/data says %q", says)
		}
		return nil
	})
	p.works()
	p.retire(p.writer, number)
	p.idle()
}

func sourceModels(p *place) {
	p.refused(sourceInternal, "not an address of the internet")
	p.refused(sourceRedirects, "not an address of the internet")
	if n := p.others.reached.Load(); n > 0 {
		p.Errorf("AOB sent %d requests to an internal address", n)
	}
}

func sourceSpeak(p *place) {
	said := p.refused(sourceSays, "may not read version acme/pallets")
	p.harmless("aob pr show", said)
	p.nowhere("the key that the source repeats", sourceKey)
}

func sourceSecrets(p *place) {
	p.refused(sourceLeaves, "is not a path below the dataset")
	for _, file := range []string{p.dir, p.state(), p.state("datasets"), p.state("datasets", "roboflow")} {
		if _, err := os.Lstat(filepath.Join(filepath.Dir(file), "left-marker")); err == nil {
			p.Errorf("an archive wrote a file beside %s", file)
		}
	}
	if files := holds(p.T, p.dir, leftContent); len(files) > 0 {
		p.Errorf("an archive wrote %v", files)
	}
	if saw := p.trainer(); strings.Contains(fmt.Sprint(saw.Environ, saw.Argv, saw.Run), sourceKey) {
		p.Error("the trainer is given the source's key")
	}
	p.nowhere("the source's key", sourceKey)
}

func sourceDisk(p *place) {
	p.idle()
	before := size(p.T, p.state("datasets"))
	p.refused(sourceHuge, "")
	p.idle()
	if grown := size(p.T, p.state("datasets")) - before; grown > 1<<20 {
		p.Errorf("a refused dataset leaves %d bytes", grown)
	}
}

// track is a tracker that answers in all the ways in which it should not, one after the other, and then as MLflow.
func (o *others) track(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(io.LimitReader(r.Body, 64<<20))
	o.mu.Lock()
	fmt.Fprintf(&o.told, "%s %s %v\n%s\n", r.Method, r.URL, r.Header, body)
	mode := o.asked
	o.asked++
	o.mu.Unlock()
	said := hostileText + r.Header.Get("Authorization") + strings.Repeat("x", 1000) + farMarker
	switch mode {
	case 0:
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprint(w, said)
	case 1:
		http.Redirect(w, r, o.internal.URL+"/latest/meta-data", http.StatusTemporaryRedirect)
	case 2:
		fmt.Fprintf(w, `{"runs": [%s{}]}`, strings.Repeat("{},", 2_000_000))
	case 3:
		w.Header().Set("Content-Type", said[:20])
		fmt.Fprint(w, said)
	case 4:
		for {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				return
			}
		}
	default:
		fmt.Fprintf(w, `{"next_page_token": "%d", "model_versions": [{"version": "1"}], "verdict": "fail",
			"experiment": {"experiment_id": "1"}, "registered_model": {"name": "x"}}`, mode)
	}
}

// trackedPull proposes a model that the tracker should show, once, and waits until its release may be merged.
func (p *place) trackedPull() int {
	p.Helper()
	o := p.others
	if o.tracked == 0 {
		p.idle()
		o.trained = metrics(p.T, p.counters)["aob_trainings_total"]
		o.tracked = p.propose(p.writer, map[string]string{"models/tracked.yaml": shapesModel("tracked", 1) +
			"track: {mlflow: evil}\n", "gates/tracked.yaml": gateFile("tracked", "tracked", p.ownerName,
			"{metric: mAP, min: 0}")})
		p.green(o.tracked)
		until(p.T, func() error {
			o.mu.Lock()
			defer o.mu.Unlock()
			if o.asked < 6 {
				return fmt.Errorf("the tracker was asked %d times", o.asked)
			}
			return nil
		})
	}
	return o.tracked
}

// got is all that the tracker was sent.
func (o *others) got() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.told.String()
}

func trackerBar(p *place) {
	number := p.trackedPull()
	p.green(number) // whatever the tracker answers
	if said := p.show(number); strings.Contains(fmt.Sprint(said.Models), hostileText) {
		p.Errorf("the tracker's answer is in the verdict: %+v", said.Models)
	}
}

func trackerSpend(p *place) {
	p.trackedPull()
	if n := metrics(p.T, p.counters)["aob_trainings_total"] - p.others.trained; n > 1 {
		p.Errorf("%v trainings for one model with one seed", n)
	}
}

func trackerStop(p *place) {
	p.trackedPull()
	p.works()
	if peak := peak(p.T, p.pid); peak > 1<<30 {
		p.Errorf("the server took %d MiB", peak>>20)
	}
}

func trackerModels(p *place) {
	p.trackedPull()
	got := p.others.got()
	for _, what := range []string{p.dir, "onnx.", "\x08\x0a\x12", "/state/"} {
		if strings.Contains(got, what) {
			p.Errorf("the tracker was sent %q", what)
		}
	}
	if len(got) > 1<<20 {
		p.Errorf("the tracker was sent %d bytes about one training", len(got))
	}
}

func trackerSpeak(p *place) {
	number := p.trackedPull()
	p.harmless("aob pr show", p.shown(number))
	out, _ := exec.Command(filepath.Join(p.bin, "aob"), "status", "--socket", p.state("aob.sock")).CombinedOutput()
	p.harmless("aob status", string(out))
}

func trackerSecrets(p *place) {
	p.trackedPull()
	if n := p.others.reached.Load(); n > 0 {
		p.Errorf("AOB followed a redirect, %d times", n)
	}
	got := p.others.got()
	if !strings.Contains(got, trackerToken) {
		p.Errorf("the tracker was not sent its token: %.500s", got)
	}
	p.keeps("what the tracker was sent", got)
	if strings.Contains(got, sourceKey) {
		p.Error("the tracker was sent the source's key")
	}
	p.nowhere("the tracker's token", trackerToken)
}

func trackerDisk(p *place) {
	p.trackedPull()
	p.nowhere("the end of a long answer", farMarker)
}
