package e2e

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/tools/gitea/giteatest"
)

// What somebody on the network does who has no token.

func networkBar(p *place) {
	before := p.main()
	for _, path := range []string{"/v1/prs/1/merge", "/v1/prs/1/ask", "/v1/prs/1/recheck", "/v1/devices/demo/robot-1"} {
		p.refuses("POST", path, "", `{"text":"/aob accept 0123456789abcdef because I say so"}`, http.StatusNotFound)
	}
	for _, signature := range []string{"", "0", strings.Repeat("0", 64), "sha256=" + strings.Repeat("0", 64),
		"sha1=" + strings.Repeat("0", 40)} {
		for _, header := range []string{"X-Gitea-Signature", "X-Hub-Signature-256"} {
			body := `{"ref":"refs/heads/main","after":"` + strings.Repeat("0", 40) + `"}`
			code, says := p.send("POST", "/webhook", "", body, header, signature, "X-Gitea-Event", "push",
				"Content-Type", "application/json")
			want := http.StatusNotFound // the local forge has no webhook
			if p.m != nil {
				want = http.StatusUnauthorized
			}
			if code != want {
				p.Errorf("a webhook with the signature %q: %d %s, want %d", signature, code, says, want)
			}
		}
	}
	if after := p.main(); after != before {
		p.Errorf("main went from %.10s to %.10s", before, after)
	}
}

func networkSpend(p *place) {
	before := p.runs()
	for _, path := range []string{"/v1/trials", "/v1/prs/1/adopt", "/v1/compare?a=release&b=release"} {
		p.refuses("POST", path, "", `{"file":"models/shapes.yaml","variants":[{"set":["train.epochs=900"]}]}`,
			http.StatusNotFound)
	}
	p.refuses("GET", "/v1/compare?a=release&b=release", "", "", http.StatusNotFound)
	p.looked()
	if after := p.runs(); after != before {
		p.Errorf("%v runs were started", after-before)
	}
}

func networkStop(p *place) {
	networkSlow(p)
	p.refuses("POST", "/webhook", "", strings.Repeat("[", 2<<20), http.StatusUnauthorized,
		http.StatusRequestEntityTooLarge, http.StatusNotFound)
	p.refuses("POST", "/fleet/v1/reports", "", strings.Repeat("[", 2<<20), http.StatusUnauthorized,
		http.StatusRequestEntityTooLarge, 0)
}

// networkSlow opens many connections that send a byte of their request's body and nothing more.
func networkSlow(p *place) {
	var conns []net.Conn
	for i := range 1500 {
		c, err := net.Dial("tcp", p.address)
		if err != nil {
			break // there is no room for more of them, which is the server's right
		}
		defer c.Close()
		path := []string{"/fleet/v1/reports", "/webhook"}[i%2]
		fmt.Fprintf(c,
			"POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer demo/robot-1:%064d\r\nContent-Length: 10\r\n\r\nx",
			path, 0)
		conns = append(conns, c)
	}
	until(p.T, func() error {
		if code, says := p.send("GET", "/healthz", "", ""); code != http.StatusOK {
			return fmt.Errorf("healthz beside %d slow connections: %d %s", len(conns), code, says)
		}
		return nil
	})
	p.status()
	p.works()
	if p.cut { // they were waited for before
		return
	}
	for _, c := range []net.Conn{conns[0], conns[len(conns)-1]} {
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			p.Error("a connection that sends nothing stays open")
		}
	}
	p.cut = true
}

func networkModels(p *place) {
	bundle := p.published("demo", 1)
	for _, token := range []string{"", "Bearer ", "Bearer wrong", "Bearer demo/robot-1:" + strings.Repeat("0", 64),
		"Basic cm9vdDpyb290", strings.TrimPrefix(p.first.token, "Bearer ")} {
		for _, path := range []string{"/fleet/v1/desired/demo", "/v2/", "/v2/bundles/manifests/" + bundle,
			"/v2/bundles/blobs/" + bundle, "/v2/bundles/referrers/" + bundle} {
			p.refuses("GET", path, token, "", http.StatusUnauthorized)
		}
	}
	for _, path := range []string{"/pictures/", "/pictures/" + strings.Repeat("0", 64) + "/", "/state/", "/bundles/"} {
		p.refuses("GET", path, "", "", http.StatusNotFound)
	}
}

func networkSpeak(p *place) {
	before, err := p.first.listed()
	if err != nil {
		p.Fatal(err)
	}
	for _, token := range []string{"", "Bearer wrong", "Bearer demo/robot-1:",
		"Bearer demo/robot-1:" + strings.Repeat("0", 64), "Bearer " + p.secrets["the fleet's secret"]} {
		for _, id := range []string{"robot-1", "phantom"} {
			said := fmt.Sprintf(`{"device":%q,"ring":"demo","sequence":99,"desired":1,"phase":"idle","downloaded":0,`+
				`"at":"2026-01-01T00:00:00Z"}`, id)
			p.refuses("POST", "/fleet/v1/reports", token, said, http.StatusUnauthorized)
		}
	}
	phantom := device{p: p, ring: "demo", id: "phantom"}
	if d, err := phantom.listed(); err == nil {
		p.Errorf("there is a device %+v", d)
	}
	if after, err := p.first.listed(); err != nil || after.Phase != before.Phase || after.Seen != before.Seen {
		p.Errorf("robot-1: before %+v, after %+v, %v", before, after, err)
	}
}

func networkSecrets(p *place) {
	for _, path := range []string{"/", "/metrics", "/healthz", "/readyz", "/debug/pprof/", "/v1/status",
		"/state/fleet.secret", "/pictures/../state/fleet.secret",
		"/v2/../state/fleet.secret", "/pictures/..%2f..%2fstate%2ffleet.secret",
		"/v2/bundles/blobs/..%2f..%2ffleet.secret", "/fleet/v1/desired/..%2f..%2ffleet.secret", "/aob.yaml"} {
		code, says := p.send("GET", path, "", "")
		p.keeps(path, says)
		if path != "/healthz" && path != "/readyz" && code < 400 {
			p.Errorf("GET %s: %d %.200s", path, code, says)
		}
	}
	resp, err := http.Get("http://" + p.counters + "/metrics")
	if err != nil {
		p.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		p.Fatal(err)
	}
	p.keeps("the metrics", string(data))
}

func networkDisk(p *place) {
	marker := "kept-" + rand.Text()
	for range 20 {
		for _, path := range []string{"/webhook", "/fleet/v1/reports", "/pictures/x", "/v2/bundles/blobs/uploads/",
			"/"} {
			p.send("POST", path, "", strings.Repeat(marker, 2000))
			p.send("GET", path+"?"+marker, "Bearer "+marker, "", "User-Agent", marker)
		}
	}
	if files := holds(p.T, p.state(), marker); len(files) > 0 {
		p.Errorf("what somebody sent is in %v", files)
	}
}

// What a reader does, whom the forge lets comment and propose.

// review proposes a change of main for review, without a branch of the repository or a fork.
func (p *place) review(files map[string]string) int {
	p.Helper()
	c := p.m.clone(p.T, p.m.eve, p.m.repo)
	topic := p.branch()
	commit := c.commit(p.T, "Of a reader", files)
	c.git(p.T, "push", "-q", "-o", "topic="+topic, "origin", "HEAD:refs/for/main")
	return p.seen(commit)
}

func readerBar(p *place) {
	number, accept := p.unsure()
	p.m.gitea.PostComment(p.T, p.m.eve, p.m.repo, number, accept)
	if err := p.m.gitea.Merge(p.m.eve, p.m.repo, number); err == nil {
		p.Error("a reader merged")
	}
	path := fmt.Sprintf("/repos/%s/%s/statuses/%s", p.m.repo.Owner, p.m.repo.Name, p.show(number).Head)
	if err := p.m.gitea.Call(p.m.eve, "POST", path,
		map[string]string{"state": "success", "context": delivery.ContextRelease}, nil); err == nil {
		p.Error("a reader set a status")
	}
	p.stays(number)
	for _, c := range p.m.comments(p.T, number) {
		if strings.Contains(c, "did you write this") {
			p.Errorf("AOB asks back: %s", c)
		}
	}
	p.close(number)
}

func readerSpend(p *place) {
	before := p.runs()
	number := p.review(map[string]string{"models/shapes.yaml": shapesModel("shapes", 300)})
	line := p.asks(number)
	p.m.gitea.PostComment(p.T, p.m.eve, p.m.repo, number, line)
	if pr := p.show(number); !pr.Fork {
		p.Errorf("a head that is no branch counts as a branch: %+v", pr.PullRequest)
	}
	p.stays(number)
	if after := p.runs(); after != before {
		p.Errorf("%v runs were started", after-before)
	}
	p.close(number)
}

func readerStop(p *place) {
	number := p.review(map[string]string{"models/shapes.yaml": shapesModel("shapes", 301)})
	p.asks(number)
	lookups := func() (n float64) {
		for series, count := range metrics(p.T, p.counters) {
			if strings.HasPrefix(series, "aob_forge_call_seconds_count{") &&
				strings.Contains(series, `what="permission"`) {
				n += count
			}
		}
		return n
	}
	before := lookups()
	const many = 100
	for range many {
		p.m.gitea.PostComment(p.T, p.m.eve, p.m.repo, number, "/aob run "+strings.ToLower(rand.Text()))
	}
	p.looked()
	p.works()
	if asked := lookups() - before; asked >= many {
		p.Errorf("%d comments made AOB ask for permissions %v times", many, asked)
	}
	p.close(number)
}

func readerModels(p *place) {
	bundle := p.published("demo", 1)
	for _, path := range []string{"/fleet/v1/desired/demo", "/v2/bundles/manifests/" + bundle,
		"/v2/bundles/referrers/" + bundle} {
		for _, scheme := range []string{"Bearer ", "token "} {
			p.refuses("GET", path, scheme+p.m.eve.Token, "", http.StatusUnauthorized)
		}
	}
}

func readerSpeak(p *place) {
	before := p.runs()
	number := p.review(map[string]string{"models/shapes.yaml": shapesModel("shapes", 302)})
	line := p.asks(number)
	said := p.m.gitea.PostComment(p.T, p.m.ada, p.m.repo, number,
		"Let me think. I could write:\n\n```\n"+line+"\n```\n\n> "+line+"\n\n<!-- "+line+" -->")
	p.looked()
	for _, c := range p.m.comments(p.T, number) {
		if strings.Contains(c, "may this run?") {
			p.Errorf("a quotation is taken for an order: %s", c)
		}
	}
	if err := p.edit(p.m.eve, said, line); err == nil {
		p.Error("a reader edited another's comment")
	}
	p.m.gitea.PostComment(p.T, p.m.ada, p.m.repo, number, line)
	question := p.asked(number, strings.Fields(line)[2])
	if err := p.edit(p.m.eve, question, "Lunch?"); err == nil {
		p.Error("a reader edited AOB's comment")
	}
	if err := p.react(p.m.eve, question, ""); err != nil {
		p.Logf("a reader's reaction: %v", err)
	}
	// ada agrees to what is not AOB's question
	copied := p.m.gitea.PostComment(p.T, p.m.eve, p.m.repo, number, question.Body)
	if err := p.react(p.m.ada, copied, ""); err != nil {
		p.Fatal(err)
	}
	p.stays(number)
	if after := p.runs(); after != before {
		p.Errorf("%v runs were started", after-before)
	}
	p.close(number)
}

func readerSecrets(p *place) { p.keeps("what AOB says", p.said()) }

// bulk commits random files, of so many MiB together, outside of what AOB reads and inside of it.
func bulk(p *place, c clone, mib int) {
	p.Helper()
	for i := range mib * 16 {
		data := make([]byte, 63<<10)
		if _, err := rand.Read(data); err != nil {
			p.Fatal(err)
		}
		file := filepath.Join(c.dir, []string{"junk", "models"}[i%2], fmt.Sprintf("file-%d.bin", i))
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, data, 0o644)); err != nil {
			p.Fatal(err)
		}
	}
	c.git(p.T, "-c", "core.compression=0", "add", ".")
	c.git(p.T, "-c", "core.compression=0", "commit", "-q", "-m", "Much")
}

// fills checks that a pull request with much in it leaves at most 64 MiB after it is closed.
func (p *place) fills(number int, before int64) {
	p.Helper()
	p.looked()
	p.close(number)
	p.looked()
	if after := size(p.T, p.state()); after-before > 64<<20 {
		p.Errorf("%d MiB were kept", (after-before)>>20)
	}
	p.works()
}

func readerDisk(p *place) {
	before := size(p.T, p.state())
	c := p.m.clone(p.T, p.m.eve, p.m.repo)
	bulk(p, c, 80)
	c.git(p.T, "-c", "core.compression=0", "push", "-q", "-o", "topic="+p.branch(), "origin", "HEAD:refs/for/main")
	p.fills(p.seen(c.git(p.T, "rev-parse", "HEAD")), before)
}

// What the author of a fork does.

// fork makes a clone of eve's fork, at main.
func (p *place) fork() clone {
	p.Helper()
	var list []struct {
		Name, CloneURL string
		Owner          struct{ Login string }
	}
	p.m.call(p.T, p.m.gitea.Admin, "GET", "/forks", nil, &list)
	repo := giteatest.Repo{Owner: p.m.eve.Name, Name: p.m.repo.Name, CloneURL: strings.Replace(p.m.repo.CloneURL,
		"/"+p.m.repo.Owner+"/", "/"+p.m.eve.Name+"/", 1)}
	if len(list) == 0 {
		repo = p.m.gitea.Fork(p.T, p.m.eve, p.m.repo)
		p.m.gitea.Allow(p.T, repo, p.m.ben, "read") // who opens a pull request must see its head
	}
	c := p.m.clone(p.T, p.m.eve, repo)
	c.git(p.T, "remote", "add", "base", p.m.gitea.PushURL(p.m.repo, p.m.eve))
	c.git(p.T, "fetch", "-q", "base")
	c.git(p.T, "checkout", "-q", "-B", "main", "base/main")
	return c
}

// forked pushes a fork's branch, and opens its pull request in somebody's name.
func (p *place) forked(c clone, as giteatest.User) int {
	p.Helper()
	branch := p.branch()
	c.git(p.T, "push", "-q", "-f", "origin", "HEAD:refs/heads/"+branch)
	p.m.gitea.PullRequest(p.T, as, p.m.repo, "eve:"+branch, "main", "Of a fork")
	return p.seen(c.git(p.T, "rev-parse", "HEAD"))
}

// crossed makes a commit in a clone whose history crosses main's: its tree is that before a merge of main's, and its
// parents are that merge's.
func crossed(p *place, c clone) {
	p.Helper()
	c.git(p.T, "checkout", "-q", "-B", "crossed", p.crossing+"^1")
	c.git(p.T, "merge", "-q", "-s", "ours", "-m", "Ours", p.crossing+"^2")
	c.commit(p.T, "docs", map[string]string{"NOTES.md": "x\n"})
	if bases := strings.Fields(c.git(p.T, "merge-base", "--all", p.main(), "HEAD")); len(bases) < 2 {
		p.Fatalf("the histories do not cross: %v", bases)
	}
}

func forkBar(p *place) {
	c := p.fork()
	crossed(p, c)
	number := p.forked(c, p.m.eve)
	p.wants(number, delivery.ContextIntent, delivery.CheckFailure, "crosses main's")
	p.close(number)
	c.git(p.T, "checkout", "-q", "-B", "main", "base/main")
	c.git(p.T, "rm", "-q", heldTwin)
	c.git(p.T, "commit", "-q", "-m", "clean up")
	number = p.forked(c, p.m.eve)
	p.wants(number, delivery.ContextIntent, delivery.CheckFailure, heldTwin)
	p.close(number)
}

func forkSpend(p *place) {
	before := p.runs()
	c := p.fork()
	c.commit(p.T, "longer", map[string]string{"models/shapes.yaml": shapesModel("shapes", 303)})
	number := p.forked(c, p.m.ben) // a writer opens it, and the fork is not his
	line := p.asks(number)
	p.m.gitea.PostComment(p.T, p.m.eve, p.m.repo, number, line)
	p.stays(number)
	if after := p.runs(); after != before {
		p.Errorf("%v runs were started before a go", after-before)
	}
	p.m.gitea.PostComment(p.T, p.m.ada, p.m.repo, number, line)
	if err := p.react(p.m.ada, p.asked(number, strings.Fields(line)[2]), ""); err != nil {
		p.Fatal(err)
	}
	until(p.T, func() error {
		if p.runs() == before {
			return errors.New("a go starts nothing")
		}
		return nil
	})
	// Another content needs another go.
	branch := p.show(number).HeadRef
	c.commit(p.T, "other gates",
		map[string]string{"gates/more.yaml": gateFile("more", "shapes", "eve", "{metric: mAP, min: 0}"),
			"models/shapes.yaml": shapesModel("shapes", 304)})
	c.git(p.T, "push", "-q", "origin", "HEAD:refs/heads/"+branch)
	p.seen(c.git(p.T, "rev-parse", "HEAD"))
	p.asks(number, line)
	p.close(number)
	p.idle()
}

// idle waits until nothing runs.
func (p *place) idle() {
	p.Helper()
	until(p.T, func() error {
		s, err := p.api.Status(p.Context())
		if err == nil && len(s.Runs) > 0 {
			err = fmt.Errorf("%s of %v still runs: %s", s.Runs[0].Kind, s.Runs[0].PRs, s.Runs[0].Note)
		}
		return err
	})
}

// manyFiles makes a commit with more files than AOB reads.
func manyFiles(p *place, c clone, parent string) string {
	p.Helper()
	git := func(stdin string, args ...string) string {
		cmd := exec.Command("git", args...)
		cmd.Dir, cmd.Stdin = c.dir, strings.NewReader(stdin)
		cmd.Env = append(environment(), "GIT_AUTHOR_NAME=x", "GIT_AUTHOR_EMAIL=x@example.com", "GIT_COMMITTER_NAME=x",
			"GIT_COMMITTER_EMAIL=x@example.com")
		out, err := cmd.CombinedOutput()
		if err != nil {
			p.Fatalf("git %s: %v: %s", args[0], err, out)
		}
		return strings.TrimSpace(string(out))
	}
	blob := git("", "hash-object", "-w", "--stdin")
	var list bytes.Buffer
	for i := range 21000 {
		fmt.Fprintf(&list, "100644 blob %s\tf%05d\n", blob, i)
	}
	many := git(list.String(), "mktree")
	top := git("", "ls-tree", parent) + "\n"
	lines := slices.DeleteFunc(strings.Split(top, "\n"),
		func(l string) bool { return strings.HasSuffix(l, "\tmodels") || l == "" })
	tree := git(strings.Join(append(lines, "040000 tree "+many+"\tmodels"), "\n")+"\n", "mktree")
	return git("many files\n", "commit-tree", tree, "-p", parent)
}

func forkStop(p *place) {
	c := p.fork()
	c.git(p.T, "reset", "-q", "--hard", manyFiles(p, c, "base/main"))
	number := p.forked(c, p.m.eve)
	p.wants(number, delivery.ContextIntent, delivery.CheckFailure, "files")
	p.works()
	p.ends(number)
	p.close(number)
}

// retire takes what a pull request would train out of its branch, and closes it. A run of a pull request that is only
// closed goes on for some minutes.
func (p *place) retire(c clone, number int) {
	p.Helper()
	pr := p.show(number)
	c.git(p.T, "fetch", "-q", "origin")
	c.git(p.T, "checkout", "-q", "-B", pr.HeadRef, "origin/main")
	commit := c.commit(p.T, "No training", map[string]string{"NOTES.md": pr.HeadRef + "\n"})
	c.git(p.T, "push", "-q", "-f", "origin", "HEAD:refs/heads/"+pr.HeadRef)
	p.seen(commit)
	p.green(number)
	p.close(number)
}

// ends checks that a training ends that nobody needs, although a pull request cannot be read.
func (p *place) ends(unread int) {
	p.Helper()
	before := p.runs()
	number := p.propose(p.writer, map[string]string{"models/shapes.yaml": shapesModel("shapes", 310+p.branches)})
	until(p.T, func() error {
		if p.runs() == before {
			return errors.New("nothing was started")
		}
		return nil
	})
	p.retire(p.writer, number)
	p.idle()
	if pr := p.show(unread); pr.State == delivery.CheckSuccess {
		p.Errorf("#%d is %s: %s", unread, pr.State, pr.Text)
	}
}

func forkSpeak(p *place) {
	if _, err := p.fork().try(p.Context(), "push", "base",
		"HEAD:refs/heads/aob/restore-shapes-bbbbbbbbbbbb"); err == nil {
		p.Error("the author of a fork pushed to the repository")
	}
	c := p.fork()
	c.commit(p.T, "AOB: back to version 1", map[string]string{"README.md": "# Another\n"})
	c.git(p.T, "push", "-q", "-f", "origin", "HEAD:refs/heads/aob/quarantine-shapes-bbbbbbbb")
	p.m.gitea.PullRequest(p.T, p.m.eve, p.m.repo, "eve:aob/quarantine-shapes-bbbbbbbb", "main",
		"shapes: back to version 1")
	number := p.seen(c.git(p.T, "rev-parse", "HEAD"))
	if pr := p.show(number); pr.Author != p.m.eve.Name || !pr.Fork {
		p.Errorf("a fork's pull request is taken for another's: %+v", pr.PullRequest)
	}
	p.close(number)
}

func forkSecrets(p *place) { p.clean(); p.keeps("what AOB says", p.said()) }

func forkDisk(p *place) {
	before := size(p.T, p.state())
	c := p.fork()
	bulk(p, c, 16) // a reader has brought more than the limit
	p.fills(p.forked(c, p.m.eve), before)
}

// What somebody does who may push branches.

func writerBar(p *place) {
	c := p.writer
	c.git(p.T, "fetch", "-q")
	crossed(p, c)
	branch := p.branch()
	c.git(p.T, "push", "-q", "origin", "HEAD:refs/heads/"+branch)
	number := p.open(c.who, branch, c.git(p.T, "rev-parse", "HEAD"))
	p.wants(number, delivery.ContextIntent, delivery.CheckFailure, "crosses main's")
	p.wants(number, delivery.ContextRelease, delivery.CheckFailure, "crosses main's")
	p.close(number)

	// A fleet that is to run another model brings the gates of what it ran.
	number = p.propose(c,
		map[string]string{"fleets/other.yaml": strings.Replace(securityFiles("")["fleets/other.yaml"], "runs: strict",
			"runs: shapes", 1)})
	p.wants(number, delivery.ContextRelease, delivery.CheckFailure, "strict")
	if p.w != nil {
		pr := p.show(number)
		if _, err := p.api.Merge(p.Context(), number, pr.Head, ""); err == nil {
			p.Errorf("#%d was merged", number)
		}
	} else {
		// A status that AOB did not set is set again, and the comment says who set it.
		head := p.show(number).Head
		path := fmt.Sprintf("/repos/%s/%s/statuses/%s", p.m.repo.Owner, p.m.repo.Name, head)
		if err := p.m.gitea.Call(p.m.ben, "POST", path,
			map[string]string{"state": "success", "context": delivery.ContextRelease}, nil); err != nil {
			p.Fatal(err)
		}
		until(p.T, func() error {
			if state, says := p.check(number, delivery.ContextRelease); state != delivery.CheckFailure {
				return fmt.Errorf("the forged status stands: %s: %s", state, says)
			}
			if said := strings.Join(p.m.comments(p.T, number), "\n"); !strings.Contains(said, p.m.ben.Name) {
				return fmt.Errorf("no comment names who forged a status: %s", said)
			}
			return nil
		})
	}
	p.close(number)

	c.git(p.T, "checkout", "-q", "-B", "lifted", "origin/main")
	c.git(p.T, "rm", "-q", heldTwin)
	c.git(p.T, "commit", "-q", "-m", "clean up")
	branch = p.branch()
	c.git(p.T, "push", "-q", "origin", "HEAD:refs/heads/"+branch)
	number = p.open(c.who, branch, c.git(p.T, "rev-parse", "HEAD"))
	p.wants(number, delivery.ContextIntent, delivery.CheckFailure, heldTwin)
	p.close(number)

	// What is merged is what was looked at.
	if p.w != nil {
		number = p.propose(c, map[string]string{"README.md": "# Looked at\n"})
		p.green(number)
		pr := p.show(number)
		next := c.commit(p.T, "another", map[string]string{"README.md": "# Not looked at\n"})
		c.git(p.T, "push", "-q", "origin", "HEAD:refs/heads/"+pr.HeadRef)
		if _, err := p.api.Merge(p.Context(), number, pr.Head, ""); err == nil {
			p.Error("a head was merged that nobody looked at")
		}
		p.seen(next)
		p.close(number)
	}
}

// spends checks that runs start for somebody, one training at a time, and end with the pull request.
func spends(p *place, c clone) {
	before := p.runs()
	var numbers []int
	for range 2 {
		numbers = append(numbers,
			p.propose(c, map[string]string{"models/shapes.yaml": shapesModel("shapes", 400+p.branches)}))
	}
	until(p.T, func() error {
		s, err := p.api.Status(p.Context())
		if err != nil {
			return err
		}
		training, waiting := 0, false
		for _, r := range s.Runs {
			if r.Kind == delivery.RunTrain && r.Phase == delivery.RunRunning {
				training++
			}
		}
		for _, n := range numbers {
			state, says := p.check(n, delivery.ContextTrain)
			waiting = waiting || state == delivery.CheckPending && strings.Contains(says, "queue")
		}
		if training > 1 {
			return fatal{fmt.Errorf("%d trainings at once", training)}
		}
		if p.runs() == before || training == 0 || !waiting {
			return fmt.Errorf("%d trainings, one waits: %v", training, waiting)
		}
		return nil
	})
	for _, n := range numbers {
		p.retire(c, n)
	}
	p.idle()
}

func writerSpend(p *place) { spends(p, p.writer) }

// stops proposes what cannot be read, and checks that others do not suffer.
func stops(p *place, c clone) {
	broken := p.propose(c, map[string]string{"models/shapes.yaml": "kind: Model\n  broken: [\n"})
	p.wants(broken, delivery.ContextIntent, delivery.CheckFailure, "models/shapes.yaml")
	c.git(p.T, "fetch", "-q")
	text := fmt.Sprintf("tree %s\nparent %s\nauthor a <a@x> 1764000000 +0000\n\nno committer\n",
		c.git(p.T, "rev-parse", "origin/main^{tree}"), c.git(p.T, "rev-parse", "origin/main"))
	file := filepath.Join(p.TempDir(), "commit")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		p.Fatal(err)
	}
	commit := c.git(p.T, "hash-object", "-t", "commit", "-w", "--literally", file)
	branch := p.branch()
	if _, err := c.try(p.Context(), "push", "-q", "origin", commit+":refs/heads/"+branch); err != nil {
		p.Logf("the forge itself refuses a malformed commit: %v", err)
	} else if p.w != nil {
		p.seen(commit)
	}
	p.works()
	p.ends(broken)
	if err := errors.Join(p.alive()); err != nil {
		p.Error(err)
	}
	c.git(p.T, "push", "-q", "origin", ":refs/heads/"+branch)
	p.close(broken)
}

func writerStop(p *place) { stops(p, p.writer) }

// writerModels is also an owner's and an administrator's: the forge's tokens are no devices'.
func writerModels(p *place) {
	networkModels(p)
	bundle := p.published("demo", 1)
	if p.m != nil {
		for _, u := range []giteatest.User{p.m.ben, p.m.ada, p.m.gitea.Admin} {
			p.refuses("GET", "/v2/bundles/manifests/"+bundle, "Bearer "+u.Token, "", http.StatusUnauthorized)
		}
	}
	c := p.writer
	c.git(p.T, "fetch", "-q")
	if text := c.git(p.T, "show", "origin/main:"+"models/shapes.release.yaml"); !strings.Contains(text, bundle) {
		p.Errorf("the release file names no bundle: %s", text)
	}
}

func writerSpeak(p *place) {
	f := p.fallBack()
	if at := f.evilNow; at != f.evil {
		p.Errorf("AOB pushed to a branch that is not its own: %.10s, was %.10s", at, f.evil)
	}
	if f.pr.Head == f.evil || f.pr.HeadRef == f.branch {
		p.Errorf("AOB speaks for a branch that somebody prepared: %+v", f.pr.PullRequest)
	}
	if p.m == nil {
		return // there is no comment that others could edit
	}
	number, accept := p.unsure()
	said := p.m.gitea.PostComment(p.T, p.m.ada, p.m.repo, number, "Looks nice, I will look tomorrow.")
	if err := p.edit(p.m.ben, said, accept); err != nil { // in the same second, where the forge shows no edit
		p.Fatal(err)
	}
	question := p.asked(number, "@ada, did you write this?")
	if err := p.react(p.m.ben, question, ""); err != nil {
		p.Fatal(err)
	}
	p.stays(number)
	// Ada agrees to lunch, and ben puts the question back.
	if err := errors.Join(p.edit(p.m.ben, question, "Lunch at noon?"), p.react(p.m.ada, question, ""),
		p.edit(p.m.ben, question, question.Body)); err != nil {
		p.Fatal(err)
	}
	p.stays(number)
	p.close(number)
}

func writerSecrets(p *place) { p.clean(); p.keeps("what AOB says", p.said()) }

// disk checks that a branch with much in it is bounded.
func disk(p *place, c clone, mib int) {
	before := size(p.T, p.state())
	c.git(p.T, "fetch", "-q")
	c.git(p.T, "checkout", "-q", "-B", "much", "origin/main")
	bulk(p, c, mib)
	branch := p.branch()
	c.git(p.T, "-c", "core.compression=0", "push", "-q", "origin", "HEAD:refs/heads/"+branch)
	number := p.open(c.who, branch, c.git(p.T, "rev-parse", "HEAD"))
	p.looked()
	if after := size(p.T, p.state()); after-before > int64(mib+64)<<20 {
		p.Errorf("a branch of %d MiB takes %d MiB", mib, (after-before)>>20)
	}
	p.close(number)
	p.works()
}

func writerDisk(p *place) { disk(p, p.writer, 16) }
func ownerDisk(p *place)  { disk(p, p.owner, 8) }

// What an owner of a gate does.

// accept says the owner's word where the forge wants it.
func (p *place) accept(number int, line string) {
	p.Helper()
	if p.w != nil {
		if err := p.api.Command(p.Context(), number, "somebody-else", line); err != nil {
			p.Fatal(err)
		}
		return
	}
	p.m.gitea.PostComment(p.T, p.m.ada, p.m.repo, number, line)
	if err := p.react(p.m.ada, p.asked(number, "@ada, did you write this?"), ""); err != nil {
		p.Fatal(err)
	}
}

func ownerBar(p *place) {
	number, line := p.unsure()
	p.accept(number, line)
	p.green(number)
	pr := p.show(number)
	p.owner.git(p.T, "fetch", "-q")
	if text := p.owner.git(p.T, "show", pr.Head+":models/twin.release.yaml"); !strings.Contains(text, "unsure") {
		p.Errorf("the release does not say that its verdict was unsure: %s", text)
	}
	p.close(number)

	// Nobody accepts a fail.
	number = p.propose(p.owner, map[string]string{"models/strict.yaml": shapesModel("strict", trainedEpochs)})
	p.wants(number, delivery.ContextRelease, delivery.CheckFailure, "strict")
	pr = p.show(number)
	for _, m := range pr.Models {
		for _, v := range m.Verdicts {
			line := "/aob accept " + v.Key.Short() + " because I say so"
			if p.w != nil {
				_ = p.api.Command(p.Context(), number, "", line) // it may be refused
			} else {
				p.m.gitea.PostComment(p.T, p.m.ada, p.m.repo, number, line)
			}
		}
	}
	p.stays(number)
	p.close(number)
}

func ownerSpend(p *place) { spends(p, p.owner) }
func ownerStop(p *place)  { stops(p, p.owner) }

func ownerSpeak(p *place) {
	number, line := p.unsure()
	p.accept(number, line)
	p.green(number)
	out, err := exec.Command(filepath.Join(p.bin, "aob"), "explain", "pr", fmt.Sprint(number), "--socket",
		p.state("aob.sock")).CombinedOutput()
	told := string(out) + p.said()
	if !strings.Contains(told, "ccepted by "+p.ownerName) && !strings.Contains(told, "ccepted by @"+p.ownerName) ||
		strings.Contains(told, "somebody-else") {
		p.Errorf("the accept is not in the name of %s: %v %s", p.ownerName, err, told)
	}
	p.close(number)
}

// What an administrator of the forge does.

// force writes to main as an administrator, past its protection.
func (p *place) force(change func(c clone)) {
	p.Helper()
	p.m.call(p.T, p.m.gitea.Admin, "PATCH", "/branch_protections/main", map[string]any{
		"enable_push": true, "enable_push_whitelist": true, "push_whitelist_usernames": []string{p.m.ada.Name,
			p.m.gitea.Admin.Name}}, nil)
	c := p.m.clone(p.T, p.m.gitea.Admin, p.m.repo)
	change(c)
	c.git(p.T, "push", "-q", "origin", "HEAD:refs/heads/main")
}

func adminBar(p *place) {
	p.force(func(c clone) {
		c.git(p.T, "rm", "-q", "gates/spare.yaml")
		c.git(p.T, "commit", "-q", "-m", "no gate")
	})
	commit := p.main()
	until(p.T, func() error {
		s := p.m.gitea.Statuses(p.T, p.m.repo, commit)[delivery.ContextIntent]
		if s.State != "failure" || !strings.Contains(s.Description, "lost gate spare") {
			return fmt.Errorf("main: %+v", s)
		}
		return nil
	})
}

func adminSpend(p *place) { spends(p, p.m.clone(p.T, p.m.gitea.Admin, p.m.repo)) }
func adminDisk(p *place)  { disk(p, p.m.clone(p.T, p.m.gitea.Admin, p.m.repo), 8) }

func adminSpeak(p *place) {
	number, line := p.unsure()
	if err := p.m.gitea.Call(p.m.gitea.Admin, "POST", fmt.Sprintf("/repos/%s/%s/issues/%d/comments?sudo=ada",
		p.m.repo.Owner, p.m.repo.Name, number), map[string]string{"body": line}, nil); err != nil {
		p.Fatal(err)
	}
	if err := p.react(p.m.gitea.Admin, p.asked(number, "@ada, did you write this?"), "?sudo=ada"); err != nil {
		p.Fatal(err)
	}
	p.green(number)
	p.close(number)
}

func adminSecrets(p *place) {
	for what, secret := range p.secrets {
		if files := holds(p.T, p.m.gitea.Dir(), secret); len(files) > 0 && what != "the webhook's secret" {
			p.Errorf("%s is on the forge: %v", what, files)
		}
	}
}

// adminStop takes AOB's rights away. It comes last of all.
func adminStop(p *place) {
	before, err := p.first.desired()
	if err != nil {
		p.Fatal(err)
	}
	p.m.call(p.T, p.m.gitea.Admin, "DELETE", "/collaborators/"+p.m.robot.Name, nil, nil)
	until(p.T, func() error {
		s, err := p.api.Status(p.Context())
		if err == nil && !strings.Contains(strings.Join(s.Notices, "\n"), p.m.repo.Name) {
			err = fmt.Errorf("aob status does not say what is missing: %q", s.Notices)
		}
		return err
	})
	p.Logf("notices: %q", p.status().Notices)
	after, err := p.first.desired()
	if err != nil || after.Release != before.Release || after.Ring != before.Ring {
		p.Errorf("the fleet was told %+v before, and %+v after, %v", before, after, err)
	}
}
