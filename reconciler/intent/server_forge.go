package intent

import "slices"

// ServerForge is where pull requests live: one kind of forge and its settings.
type ServerForge map[string]ServerForgeSettings

// Kind returns the kind of forge, and its settings.
func (f ServerForge) Kind() (string, ServerForgeSettings) {
	for kind, settings := range f {
		return kind, settings
	}
	return "", ServerForgeSettings{}
}

// ServerForgeSettings are the settings of a forge. The local one has none.
type ServerForgeSettings struct {
	URL               string `json:"url,omitempty" check:"optional,url"`
	Repo              string `json:"repo,omitempty" check:"optional,repo"`
	Project           string `json:"project,omitempty" check:"optional,project"`
	TokenEnv          string `json:"tokenEnv,omitempty" check:"optional,variable"`
	TokenFile         string `json:"tokenFile,omitempty" check:"optional,path"`
	WebhookSecretEnv  string `json:"webhookSecretEnv,omitempty" check:"optional,variable"`
	WebhookSecretFile string `json:"webhookSecretFile,omitempty" check:"optional,path"`

	App   *ServerGitHubApp `json:"app,omitempty" check:"optional"`
	Signs bool             `json:"signs,omitempty" check:"optional"`
}

// ServerGitHubApp is AOB as a GitHub App.
type ServerGitHubApp struct {
	ID           int    `json:"id" check:"min=1,max=1000000000000"`
	Installation int    `json:"installation,omitempty" check:"optional,min=1,max=1000000000000"`
	KeyFile      string `json:"keyFile" check:"path"`
}

// forge checks that there is one kind of forge, and what it needs.
func (d *document) forge(f ServerForge, known []string) {
	kind, settings := f.Kind()
	at := member("forge", kind)
	switch {
	case len(f) != 1:
		d.complain("forge", "want exactly one forge: local: {}, gitea: {url: …, repo: …, tokenEnv: …}, "+
			"github: {repo: …, tokenEnv: …} or gitlab: {project: …, tokenEnv: …}")
	case known != nil && !slices.Contains(known, kind):
		d.complain(at, "%s", unknown("kind of forge", kind, known))
	case kind == "local":
		if settings != (ServerForgeSettings{}) {
			d.complain(at, "has no settings; want local: {}")
		}
	default:
		if settings.URL == "" && kind != "github" && kind != "gitlab" { // there is one that all know
			d.complain(member(at, "url"), "missing: the server's address, as https://gitea.example.com")
		}
		switch {
		case kind == "gitlab" && settings.Repo != "":
			d.complain(member(at, "repo"), "gitlab has projects; want project")
		case kind == "gitlab" && settings.Project == "":
			d.complain(member(at, "project"), "missing: the project there, as vision/intent")
		case kind != "gitlab" && settings.Project != "":
			d.complain(member(at, "project"), "only gitlab has projects; want repo")
		case kind != "gitlab" && settings.Repo == "":
			d.complain(member(at, "repo"), "missing: the repository there: owner/name")
		}
		if settings.Signs && kind != "github" {
			d.complain(member(at, "signs"), "only github makes commits itself; want commits.signingKey")
		}
		if settings.App != nil && kind != "github" {
			d.complain(member(at, "app"), "only github has Apps; want tokenEnv or tokenFile")
		} else if settings.App != nil && settings.TokenEnv+settings.TokenFile != "" {
			d.complain(at, "want app or a token, and not both")
		}
		d.oneOf(at, "tokenEnv", settings.TokenEnv, "tokenFile", settings.TokenFile, settings.App == nil)
		d.oneOf(at, "webhookSecretEnv", settings.WebhookSecretEnv, "webhookSecretFile", settings.WebhookSecretFile,
			false)
	}
}
