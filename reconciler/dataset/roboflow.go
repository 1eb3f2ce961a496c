package dataset

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Roboflow is the source roboflow: versions of projects in a workspace of Roboflow, exported as COCO. A location is the
// address of the workspace, https://api.roboflow.com/acme, and a reference goes on with the project and the number of
// the version. A version never changes, so it is fetched once. With ?secrets=NAME after the address the key is the
// secret NAME_API_KEY, for a workspace with a key of its own.
//
// The key is in the query of each request to Roboflow, as its API wants it. No such address gets into an error or a
// log, and no request with the key follows a redirect.
type Roboflow struct {
	Transport http.RoundTripper // nil: one that connects to the location and to public addresses only
}

// RoboflowKey is the name of the secret that Roboflow's API wants, where the location names no other.
const RoboflowKey = "ROBOFLOW_API_KEY"

// exportLimit is how long a version may take to be ready for the download.
const exportLimit = 30 * time.Minute

// exportFormat is the name of COCO in Roboflow's API.
const exportFormat = "coco"

// exportedNote is a file of each export that has the time of the export. It is no part of the dataset: else a version
// that is exported again would be another dataset.
const exportedNote = "README.roboflow.txt"

// Secrets implements [Source].
func (Roboflow) Secrets(location string) []string {
	_, key, err := workspace(location)
	if err != nil {
		return nil // Open says so
	}
	return []string{key}
}

// Check implements [Source].
func (r Roboflow) Check(ctx context.Context, ref Reference) (string, error) {
	c, err := r.client(ref)
	if err != nil {
		return "", err
	}
	defer c.close()
	var answer struct {
		Workspace struct {
			Projects []json.RawMessage `json:"projects"`
		} `json:"workspace"`
	}
	if _, err := c.get(ctx, "workspace "+c.workspace, nil, &answer); err != nil {
		return "", err
	}
	return fmt.Sprintf("workspace %s answers and accepts the key; it has %s", c.workspace,
		delivery.Count(len(answer.Workspace.Projects), "project")), nil
}

var (
	workspaceName = regexp.MustCompile(`^/[A-Za-z0-9][A-Za-z0-9_-]{0,99}/?$`)
	versionPath   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,199}/[1-9][0-9]{0,8}$`)
)

// Open implements [Source]. It asks nothing: what was fetched before is used also when Roboflow does not answer.
func (r Roboflow) Open(_ context.Context, ref Reference) (Version, error) {
	at, _, err := workspace(ref.Location)
	if err != nil {
		return Version{}, err
	}
	if !versionPath.MatchString(ref.Path) {
		return Version{}, delivery.Blockedf("name the project and the number of its version, as in "+
			"roboflow: NAME/pallets/14", "it names no version of a project")
	}
	return Version{Share: true, ID: at.String() + " " + ref.Path + " " + exportFormat, Fetch: func(ctx context.Context,
		to *Writer) error {
		c, err := r.client(ref)
		if err != nil {
			return err
		}
		defer c.close()
		return c.fetch(ctx, ref.Path, to)
	}}, nil
}

// workspace parses a location: the address, and the name of the secret with the key. Errors do not repeat it, since it
// may have a key that does not belong there.
func workspace(location string) (at *url.URL, key string, err error) {
	const do = "want an address as https://api.roboflow.com/acme in datasets.roboflow of the server's configuration, " +
		"which may end with ?secrets=NAME, where the secret NAME_API_KEY has the key"
	at, err = url.Parse(location)
	switch {
	case err != nil || at.Host == "" || at.User != nil || at.Fragment != "" || !workspaceName.MatchString(at.Path):
		return nil, "", delivery.Blockedf(do, "its location is not the address of a workspace")
	case at.Scheme != "https" && !(at.Scheme == "http" && isLoopback(at.Hostname())):
		return nil, "", delivery.Blockedf(do, "its location does not begin with https, so the key would not be safe")
	}
	key = RoboflowKey
	if at.RawQuery != "" || at.ForceQuery {
		name, is := strings.CutPrefix(at.RawQuery, "secrets=")
		if !is || !secretName.MatchString(name) {
			return nil, "", delivery.Blockedf(do, "what follows ? in its location is not understood")
		}
		key = name + "_API_KEY"
	}
	at.Path, at.RawQuery, at.ForceQuery = strings.TrimSuffix(at.Path, "/"), "", false
	return at, key, nil
}

func isLoopback(host string) bool { return host == "127.0.0.1" || host == "::1" || host == "localhost" }

// A roboflowClient asks the API for one workspace.
type roboflowClient struct {
	at        *url.URL
	workspace string
	key       string
	secret    string // the name of the key
	mask      delivery.Mask
	api, web  *http.Client // with the key, and without
	tell      Progress
	close     func()
}

func (r Roboflow) client(ref Reference) (*roboflowClient, error) {
	at, name, err := workspace(ref.Location)
	if err != nil {
		return nil, err
	}
	key, err := ref.Secret(name)
	if err != nil {
		return nil, err
	}
	key = strings.TrimSpace(key)
	c := &roboflowClient{at: at, workspace: strings.Trim(at.Path, "/"), key: key, secret: name,
		close: func() {}, tell: func(Phase, int, int) {},
		mask: delivery.NewMask(slices.Values([]string{key}))}
	transport := r.Transport
	if transport == nil {
		own := newTransport(hostPort(at))
		transport, c.close = own, own.CloseIdleConnections
	}
	c.api = &http.Client{Transport: transport, Timeout: 2 * time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	c.web = &http.Client{Transport: transport, CheckRedirect: mayRedirect(at)}
	return c, nil
}

// fetch writes a version, once it is exported.
func (c *roboflowClient) fetch(ctx context.Context, version string, to *Writer) error {
	c.tell = to.tell
	for again := false; ; again = true {
		err := c.download(ctx, version, to)
		if _, broken := errors.AsType[brokenArchive](err); !broken || again {
			return c.mask.Error(err)
		}
		if err := to.reset(); err != nil { // once more, since a download may have been damaged
			return err
		}
	}
}

func (c *roboflowClient) download(ctx context.Context, version string, to *Writer) error {
	spool, err := to.Spool()
	if err != nil {
		return err
	}
	defer spool.Close()
	d := download{client: c.web, to: spool, most: to.bytes, room: to.room,
		tell: func(done, total int64) { to.tell(Downloading, int(done/1e6), int(total/1e6)) },
		link: func(ctx context.Context) (*url.URL, error) { return c.link(ctx, version) }}
	if err := d.fetch(ctx); err != nil {
		return err
	}
	u := unpacker{to: to, any: anyRatio, skip: exportedNote}
	return u.unpack(ctx, spool)
}

// link waits until a version is generated and exported, and returns the address of the export.
func (c *roboflowClient) link(ctx context.Context, version string) (*url.URL, error) {
	end := time.Now().Add(exportLimit)
	what := "version " + c.workspace + "/" + version
	for try := 0; ; try++ {
		var answer struct {
			Version struct {
				Generating bool    `json:"generating"`
				Progress   float64 `json:"progress"`
			} `json:"version"`
		}
		if _, err := c.get(ctx, what, []string{version}, &answer); err != nil {
			return nil, err
		}
		if !answer.Version.Generating {
			break
		}
		c.tell(Generating, percent(answer.Version.Progress), 100)
		if err := c.poll(ctx, end, try, what, "generated", answer.Version.Progress); err != nil {
			return nil, err
		}
	}
	for try := 0; ; try++ {
		var answer struct {
			Progress float64 `json:"progress"`
			Export   struct {
				Link string `json:"link"`
			} `json:"export"`
		}
		status, err := c.get(ctx, what, []string{version, exportFormat}, &answer)
		if err != nil {
			return nil, err
		}
		if status == http.StatusAccepted || answer.Export.Link == "" {
			c.tell(Exporting, percent(answer.Progress), 100)
			if err := c.poll(ctx, end, try, what, "exported", answer.Progress); err != nil {
				return nil, err
			}
			continue
		}
		link, err := url.Parse(answer.Export.Link)
		if err != nil {
			return nil, fmt.Errorf("Roboflow gives a link to %s that is no address", what)
		}
		if err := mayDownload(link, c.at); err != nil {
			return nil, err
		}
		return link, nil
	}
}

// percent returns a progress in percent. Roboflow has sent more than 1.
func percent(progress float64) int {
	if math.IsNaN(progress) {
		return 0
	}
	return int(100 * min(max(progress, 0), 1))
}

// poll waits before Roboflow is asked again, at most until end.
func (c *roboflowClient) poll(ctx context.Context, end time.Time, try int, what, done string, progress float64) error {
	d := min(time.Second+time.Duration(try)*time.Second/2, 10*time.Second)
	if time.Now().Add(d).After(end) {
		return delivery.Blockedf("look at the version in Roboflow; when it is ready, aob pr recheck NUMBER tries again",
			"%s was not %s in %s; Roboflow says %d %%", what, done, exportLimit, percent(progress))
	}
	return sleep(ctx, d)
}

// get asks the API, with retries, and decodes the answer. what is for errors.
func (c *roboflowClient) get(ctx context.Context, what string, path []string, into any) (status int, err error) {
	for try := 0; ; try++ {
		response, body, err := c.once(ctx, path)
		if err == nil {
			status = response.StatusCode
			if status == http.StatusOK || status == http.StatusAccepted {
				if json.Unmarshal(body, into) == nil {
					return status, nil
				}
				kind, _, _ := strings.Cut(response.Header.Get("Content-Type"), ";")
				err = fmt.Errorf("it answers with %s that is not the JSON of its API",
					cmp.Or(delivery.PlainText(kind, 40), "something"))
			} else if err = c.refusal(what, status, body); status != http.StatusTooManyRequests && status < 500 {
				return status, err
			}
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if try+1 >= maxTries {
			return status, fmt.Errorf("ask %s for %s: %w", c.at.Host, what, err)
		}
		c.tell(Asking, try+2, maxTries)
		if response != nil {
			if asked, ok := askedWait(response.Header); ok {
				if asked > maxAskedWait {
					return status, fmt.Errorf("ask %s for %s: %w; it wants us to wait for %s", c.at.Host, what, err,
						asked)
				}
				if err := sleep(ctx, max(asked, time.Second)); err != nil {
					return 0, err
				}
				continue
			}
		}
		if err := pause(ctx, try); err != nil {
			return 0, err
		}
	}
}

// maxAnswer is the largest answer of the API, in bytes.
const maxAnswer = 16 << 20

// once asks the API once.
func (c *roboflowClient) once(ctx context.Context, path []string) (*http.Response, []byte, error) {
	at := c.at.JoinPath(path...)
	at.RawQuery = url.Values{"api_key": {c.key}, "nocache": {"true"}}.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, nil, withoutAddress(err)
	}
	response, err := c.api.Do(request)
	if err != nil {
		if err = withoutAddress(err); c.mask.Text(err.Error()) != err.Error() {
			err = errors.New(c.mask.Text(err.Error()))
		}
		return nil, nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = fmt.Errorf("the answer has more than %d bytes", maxAnswer)
	}
	return response, body, err
}

// refusal is the error of an answer that is none of what was asked for.
func (c *roboflowClient) refusal(what string, status int, body []byte) error {
	said := fmt.Sprintf("status %d", status)
	if text := c.said(body); text != "" {
		said += ": " + text
	}
	switch {
	case status == http.StatusUnauthorized:
		return delivery.Blockedf("make a key in Roboflow (Settings, API Keys, of workspace "+c.workspace+") and put "+
			"it where secrets."+c.secret+" of the server's configuration says",
			"Roboflow refuses the server's key (%s)", said)
	case status == http.StatusForbidden:
		return delivery.Blockedf("use a key of workspace "+c.workspace+" in secrets."+c.secret,
			"the server's key for Roboflow may not read %s (%s)", what, said)
	case status == http.StatusNotFound:
		return delivery.Blockedf("check the names and the number in Roboflow", "Roboflow has no %s (%s)", what, said)
	case status == http.StatusConflict:
		return delivery.Blockedf("wait until Roboflow is done with it; then aob pr recheck NUMBER tries again",
			"Roboflow cannot export %s now (%s)", what, said)
	case status == http.StatusTooManyRequests:
		return fmt.Errorf("too many requests (%s)", said)
	case status >= 300 && status < 400:
		return delivery.Blockedf("correct datasets.roboflow of the server's configuration", "%s answers with a "+
			"redirect, which is not followed, since it would get the key (status %d)", c.at.Host, status)
	case status >= 500:
		return errors.New(said)
	}
	return delivery.Blockedf("look at the version in Roboflow", "Roboflow does not give %s (%s)", what, said)
}

// said returns the message of an answer. Roboflow writes it in several forms.
func (c *roboflowClient) said(body []byte) string {
	var m map[string]any
	if json.Unmarshal(body, &m) != nil {
		text := strings.TrimSpace(string(body))
		if strings.HasPrefix(text, "<") { // a page, and not for people who read an error
			return ""
		}
		return delivery.PlainText(c.mask.Text(text), 200)
	}
	for _, v := range []any{m["message"], m["error"]} {
		if nested, ok := v.(map[string]any); ok {
			v = nested["message"]
			if text, ok := v.(string); !ok || text == "" {
				v = strings.Join(slices.Sorted(maps.Keys(nested)), ", ")
			}
		}
		if text, ok := v.(string); ok && text != "" {
			return delivery.PlainText(c.mask.Text(text), 200)
		}
	}
	return ""
}
