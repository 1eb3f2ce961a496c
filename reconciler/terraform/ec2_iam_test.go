package terraform

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	trainawsec2 "github.com/autonomos/aob/infra/terraform/train-aws-ec2"
	"github.com/autonomos/aob/reconciler/cloud"
	"github.com/autonomos/aob/tools/moto/mototest"
)

// A guard is moto that checks which actions a user's policy allows. It knows no conditions and few resources, and takes
// signed calls of the scheduler for forged: reconciler/cloud compares those. Another moto answers for the scheduler.
type guard struct {
	*emulator
	iam     *iam.Client // of a user who may do everything
	key, id string      // of the server
}

// guarded makes a user with the actions of the policy of github-oidc, and has moto check them from now on.
func (e *emulator) guarded(t *testing.T) *guard {
	t.Helper()
	g := &guard{emulator: e}
	at := func(id, key string) *iam.Client {
		return iam.New(iam.Options{Region: "us-east-1", BaseEndpoint: &e.URL,
			Credentials: credentials.NewStaticCredentialsProvider(id, key, "")})
	}
	g.iam = at("id", "key")
	user := func(name string, actions []string) (id, key string) {
		t.Helper()
		if _, err := g.iam.CreateUser(t.Context(), &iam.CreateUserInput{UserName: &name}); err != nil {
			t.Fatal(err)
		}
		g.allow(t, name, actions)
		made, err := g.iam.CreateAccessKey(t.Context(), &iam.CreateAccessKeyInput{UserName: &name})
		if err != nil {
			t.Fatal(err)
		}
		return *made.AccessKey.AccessKeyId, *made.AccessKey.SecretAccessKey
	}
	g.id, g.key = user("server", policyActions(t))
	admin := at(user("admin", []string{"*"}))
	answer, err := http.Post(e.URL+"/moto-api/reset-auth", "text/plain", strings.NewReader("0"))
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatal(answer, err)
	}
	answer.Body.Close()
	g.iam = admin
	to := func(address string) *httputil.ReverseProxy {
		at, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		return &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(at)
			p.Out.Host = p.In.Host // it is signed
		}}
	}
	guard, scheduler := to(e.URL), to(mototest.Start(t).URL)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("Authorization"), "/scheduler/aws4_request") {
			scheduler.ServeHTTP(w, r)
			return
		}
		guard.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	e.Server = &mototest.Server{URL: server.URL}
	return g
}

// allow gives a user a policy.
func (g *guard) allow(t *testing.T, user string, actions []string) {
	t.Helper()
	name := "actions"
	text := policyText(document{"Effect": "Allow", "Action": actions, "Resource": "*"})
	if _, err := g.iam.PutUserPolicy(t.Context(), &iam.PutUserPolicyInput{UserName: &user, PolicyName: &name,
		PolicyDocument: &text}); err != nil {
		t.Fatal(err)
	}
}

// policyActions are the actions that the policy of github-oidc allows.
func policyActions(t *testing.T) (list []string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "policies", "controller.json"))
	if err != nil {
		t.Fatal(err)
	}
	var policy struct{ Statement []struct{ Action []string } }
	if err := json.Unmarshal(data, &policy); err != nil {
		t.Fatal(err)
	}
	for _, s := range policy.Statement {
		list = append(list, s.Action...)
	}
	return list
}

// The module is planned, applied and destroyed, and a sweep ends what it made, with no more than the policy of
// github-oidc allows. Without one of its actions something fails.
func TestPolicyCoversTheModule(t *testing.T) {
	t.Parallel()
	g := startEmulator(t).guarded(t)
	env := g.env()
	env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"] = g.id, g.key
	v := g.values()
	v.PermissionsBoundary = "arn:aws:iam::" + testAccount + ":policy/aob/aob-aob.example-boundary"
	dir := filepath.Join(t.TempDir(), "stack")
	s, err := g.module(trainawsec2.Files, "runs/r.tfstate").Create(dir, v, v.Policy(), env)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Plan(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	account, err := cloud.OpenAccount(t.Context(), cloud.AccountAddress{Regions: []string{testRegion}, Endpoint: g.URL,
		KeyID: g.id, Key: g.key})
	if err != nil {
		t.Fatal(err)
	}
	listing := account.List(t.Context(), v.Controller)
	if len(listing.Failed) > 0 || len(listing.Items) == 0 {
		t.Fatalf("a sweep finds %v, and fails with %v", listing.Items, listing.Failed)
	}
	for _, item := range listing.Items {
		if err := account.End(t.Context(), item); err != nil {
			t.Errorf("%s %s: %v", item.Kind, item.ID, err)
		}
	}
	if err := s.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, action := range []string{"ec2:RunInstances", "iam:CreateRole", "ec2:DescribeImages"} {
		g.allow(t, "server", slices.DeleteFunc(policyActions(t), func(a string) bool { return a == action }))
		err := s.Plan(t.Context())
		if err == nil {
			err = s.Apply(t.Context())
		}
		if err == nil {
			t.Errorf("without %s nothing fails", action)
		}
		g.allow(t, "server", policyActions(t))
		if err := s.Destroy(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
