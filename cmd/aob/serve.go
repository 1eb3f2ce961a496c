package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // windows name zones, and a server may have none

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler"
	"github.com/autonomos/aob/reconciler/archive"
	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/evidence"
	"github.com/autonomos/aob/reconciler/fleet"
	"github.com/autonomos/aob/reconciler/forge"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/run"
	"github.com/autonomos/aob/reconciler/store"
	"github.com/autonomos/aob/reconciler/trainer"
	"github.com/autonomos/aob/reconciler/trust"
	"github.com/autonomos/aob/reconciler/view"
	"github.com/autonomos/aob/reconciler/web"
	"github.com/autonomos/aob/reconciler/work"
)

// newServeCommand is the server: the loop, the API and what devices read.
func newServeCommand() *cobra.Command {
	var config string
	var adopt bool
	c := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Run the loop: train, judge and release what the repository asks for",
		Long: `Serve watches the intent repository and makes the world follow it. It keeps
everything in the folder that state: names, and may be killed and started again
at any time: runs go on without it.

A state folder that was copied, as for a rehearsal or from a backup, belongs to the
server that it was copied from. Serve recognises a copy and only watches: it starts,
ends, pushes and publishes nothing. Where the original is lost, or was ended for
good, --adopt-state takes the copy over.`,
		Example: "  aob init world\n  aob serve --config world/aob.yaml",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return serve(c.Context(), config, adopt)
		},
	}
	c.Flags().StringVar(&config, "config", "aob.yaml", "the server's configuration; its fields: aob schema server")
	c.Flags().BoolVar(&adopt, "adopt-state", false,
		"take over a state folder that is a copy; the original must not run any more")
	return c
}

func newLog() *slog.Logger {
	return slog.New(slog.NewJSONHandler(delivery.LogWriter{W: os.Stderr}, nil))
}

func serve(ctx context.Context, config string, adopt bool) (err error) {
	log := newLog()
	p, err := openServer(ctx, config, adopt, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var background sync.WaitGroup
	background.Go(func() { p.store.Run(ctx) })
	defer background.Wait()
	defer cancel()
	failed := make(chan error, 2)
	go func() { failed <- p.web.Run(ctx); cancel() }()
	go func() { failed <- p.loop.Run(ctx); cancel() }()
	log.Info("serving", "repository", redacted(p.repository), "state", string(p.state))
	for range cap(failed) {
		if part := <-failed; !errors.Is(part, context.Canceled) { // asked to end; runs go on by themselves
			err = errors.Join(err, part)
		}
	}
	return err
}

// A server is the loop and what people, devices and the forge reach it by, both
// at rest: aob serve runs them, aob plan --config asks the loop once.
type server struct {
	loop       *reconciler.Reconciler
	source     *view.Source
	web        web.Server
	store      *archive.Check
	state      state
	repository string
	closers    []func() error
}

// close gives back what the server holds, in the opposite order.
func (p *server) close() error {
	var err error
	for _, c := range slices.Backward(p.closers) {
		err = errors.Join(err, c())
	}
	return err
}

// openServer puts a server together from its configuration. Its state folder is
// locked until it is closed. One that is a copy is only watched, or adopted.
func openServer(ctx context.Context, config string, adopt bool, log *slog.Logger) (_ *server, err error) {
	s, err := loadServer(config)
	if err != nil {
		return nil, err
	}
	if config, err = filepath.Abs(config); err != nil {
		return nil, err
	}
	st := state(s.State)
	// as a volume that another user owns
	if err := durable.PrivateFolder(string(st)); errors.Is(err, durable.ErrNotPrivate) {
		log.Warn("other users of this machine may read the state folder: give it to the user of aob serve, and set "+
			"its mode to 0700", "error", err.Error())
	} else if err != nil {
		return nil, err
	}
	p := &server{state: st, repository: s.Repository}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	lock, err := durable.TryLock(st.path("serve.lock"))
	if errors.Is(err, durable.ErrLocked) {
		return nil, delivery.Blockedf("use that one (aob plan without --config asks it), or give this one another "+
			"state folder", "an aob serve works in %s", st)
	}
	if err != nil {
		return nil, err
	}
	p.closers = append(p.closers, lock.Unlock)
	folder, watches, err := openState(st, config, adopt)
	if err != nil {
		return nil, err
	}
	if watches != nil {
		log.Warn("this server only watches", "why", watches.What, "hint", watches.Do)
	}

	evidenceKey, err := loadKey(orDefault(s.Keys.Evidence, st.path("keys", "evidence.key")))
	if err != nil {
		return nil, err
	}
	desiredKey, err := loadKey(orDefault(s.Keys.Desired, st.path("keys", "desired.key")))
	if err != nil {
		return nil, err
	}
	trusted, err := loadTrusted(s.Keys.Trusted)
	if err != nil {
		return nil, err
	}
	fleetKey, err := fleetSecret(s, st)
	if err != nil {
		return nil, err
	}
	book, err := ledger.Open(ctx, st.ledger())
	if err != nil {
		return nil, err
	}
	p.closers = append(p.closers, book.Close)
	// Where it cannot be opened, fleets go on with what is published, and aob status says why.
	bundles, err := artifact.At(st.bundles())
	if err != nil {
		return nil, err
	}
	bundles.LockWait = time.Second // the loop signs with it
	files, err := trainerFiles(s.Trainers)
	if err != nil {
		return nil, err
	}
	trainers, err := trainer.Install(files, st.trainers())
	if err != nil {
		return nil, err
	}
	if err := checkSecrets(s, trainers); err != nil {
		return nil, err
	}
	protocol, err := work.Protocol()
	if err != nil {
		return nil, err
	}
	metrics := web.NewMetrics()
	kind, settings := s.Forge.Kind()
	mirror, err := git.Open(st.mirror(), git.Remote{URL: s.Repository, Auth: gitAuth(kind, settings),
		Transport: metrics.CountGit(git.Transport()), Main: s.Main, Pulls: forge.Kinds[kind].Pulls})
	if err != nil {
		return nil, err
	}
	p.closers = append(p.closers, mirror.Close)
	committer := git.Committer{Name: s.Commits.Name, Email: s.Commits.Email}
	var signed forge.Signed
	if s.Commits.SigningKey != "" {
		key, err := trust.LoadSSH(s.Commits.SigningKey)
		if err != nil {
			return nil, err
		}
		committer.Sign = func(commit []byte) ([]byte, error) { return key.Sign("git", commit) }
		signed = forge.Signed{Email: s.Commits.Email, Key: key.Public()}
	}
	mirror.CommitAs(committer)
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}

	r := &reconciler.Reconciler{
		Repo: mirror, Ledger: book, Metrics: metrics,
		Parser: intent.NewCache(intent.Options{Trainers: trainers, Datasets: datasetNames(s), Zone: knownZone}),
		Main:   s.Main, GitPoll: time.Duration(s.Poll.Git), Poll: time.Duration(s.Poll.Forge),
		Progress: 5 * time.Second,
		Server: plan.Server{Trainers: trainers.Descriptions(), Protocol: protocol,
			Numerics: detect.Numerics, Provider: detect.Provider,
			DataTime: delivery.Duration(2 * time.Hour),
			EvalTime: s.Detector.Limit, NextPoll: s.Fleets.Poll, Expiry: s.Fleets.Expiry, Deadline: s.Fleets.Deadline,
			Trainings: s.Trainings,
			Runs:      cmp.Or(s.Runs, max(1, runtime.NumCPU()-1)),
			URL:       strings.TrimRight(s.Listen.URL, "/")},
		Log: log, Now: time.Now,
	}
	r.Runs = &run.Store{Dir: st.runs(), Command: []string{self, "runner", "--config", config}, StateID: folder.ID,
		Env: runnerEnv(s, trainers), Wake: r.Wake}
	r.Evidence = &archive.Archive{Bundles: bundles, Statements: evidence.New(bundles, evidenceKey, trusted),
		Log: log}
	least := int64(0)
	if folder.From != "" { // the original may have published since it was copied
		least = fleet.LeastVersion(folder.Since)
	}
	devices, err := fleet.Open(ctx, fleet.Config{Dir: string(st), Key: desiredKey, Secret: fleetKey, Registry: book,
		Least:  least,
		Expiry: time.Duration(s.Fleets.Expiry), Deadline: time.Duration(s.Fleets.Deadline),
		MaxWaiters: web.SiteLimits().Connections / 2,
		Wake:       r.Wake, Log: log})
	if err != nil {
		return nil, err
	}
	r.Fleet = devices
	r.Server.Seed, r.Server.Least = fleet.Seed(fleetKey), least
	check := archive.NewCheck(bundles, r.Wake, log, time.Now)
	r.Blobs, p.store = check, check

	requests := view.NewRequests(book, log)
	r.Requests = requests
	source := &view.Source{Loop: r, Requests: requests, Fleet: devices, Parser: r.Parser, Main: s.Main, Now: time.Now,
		Files: store.Folder(st), Commits: mirror}
	metrics.Watch(source)
	connection, err := connect(s, forge.Settings{Main: s.Main, Signed: signed, Address: s.Repository, Git: mirror,
		Rows: book}, log)
	if err != nil {
		return nil, err
	}
	r.Forge, source.Merger, source.Asker = connection.Forge, connection.Merge, connection.Ask
	r.Server.Socket = connection.Ask != nil
	var webhook http.Handler
	if connection.Webhook != nil {
		webhook = webhookOf(connection, r, metrics, log)
	}

	p.loop, p.source, p.web = r, source, web.Server{Source: source, Metrics: metrics, Log: log,
		Socket:  orDefault(s.Socket, st.path("aob.sock")),
		Address: s.Listen.Address, Certificate: s.Listen.Certificate, Key: s.Listen.Key,
		Listens: devices.Listen, Fleet: devices.Handler(), Bundles: devices.Guard(bundles.Handler(metrics.BytesServed)),
		MetricsAddress: s.Listen.Metrics, Webhook: webhook, Pictures: web.Pictures(store.Folder(st)),
		Ready: source.Ready,
	}
	if watches != nil {
		r.Watch(*watches)
		source.Fleet = r.Fleet
		p.web.Refuse, p.web.Socket = *watches, st.path("aob.sock") // the configured one may be the original's
	}
	r.Init()
	return p, nil
}

// openState returns the identity of a state folder, and why a server may only watch
// it: it is a copy. To adopt it gives it an identity of its own, unless the original
// is at work.
func openState(st state, config string, adopt bool) (f durable.Folder, watches *delivery.Blocked, err error) {
	f, err = durable.OpenFolder(string(st))
	c, ok := errors.AsType[*durable.Copied](err)
	_, newer := errors.AsType[delivery.Blocked](err)
	switch {
	case err == nil || newer:
		return f, nil, err
	case !ok:
		return f, nil, delivery.Blockedf(
			"restore that file from a backup; or remove it, if no other server works with this folder or a copy of it",
			"the identity of the state folder cannot be read: %s", err)
	case !adopt:
		return f, &delivery.Blocked{What: c.Error() +
			". So this server only watches: it starts, ends, pushes, publishes and says nothing",
			Do: fmt.Sprintf("if the original is lost or was ended for good, as after a move or from a backup, end "+
				"this server and take the folder over: aob serve --config %s --adopt-state", config)}, nil
	}
	original := state(c.Of.Path)
	if other, err := durable.ReadFolder(string(original)); err == nil && other.ID == c.Of.ID && c.Of.Path != c.Path {
		lock, err := durable.TryLock(original.path("serve.lock"))
		if errors.Is(err, durable.ErrLocked) {
			return f, nil, delivery.Blockedf("end that one first",
				"%s cannot be taken over: an aob serve works in the original, %s", st, original)
		}
		if err == nil {
			err = lock.Unlock()
		}
		if err != nil {
			return f, nil, err
		}
	}
	f, err = durable.AdoptFolder(string(st))
	return f, nil, err
}

func orDefault(value, other string) string {
	if value != "" {
		return value
	}
	return other
}

func loadTrusted(files []string) ([]trust.PublicKey, error) {
	var keys []trust.PublicKey
	for _, f := range files {
		more, err := trust.LoadPublic(f)
		if err != nil {
			return nil, err
		}
		keys = append(keys, more...)
	}
	return keys, nil
}

// fleetSecret is what devices' tokens are derived from. Its file is made at the
// first start.
func fleetSecret(s intent.Server, st state) (string, error) {
	if s.Devices.SecretEnv != "" {
		return secret(s.Devices.SecretEnv, "")
	}
	path := orDefault(s.Devices.SecretFile, st.path("fleet.secret"))
	have, err := secret("", path)
	if !errors.Is(err, fs.ErrNotExist) {
		return have, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	raw := make([]byte, 32)
	if _, err := rand.Read(raw); err != nil {
		return "", err
	}
	have = hex.EncodeToString(raw)
	return have, durable.WriteFile(path, []byte(have+"\n"), 0o600)
}

func knownZone(name string) error {
	_, err := time.LoadLocation(name)
	return err
}

// redacted shows an address without the user in it.
func redacted(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return address
	}
	return fmt.Sprintf("%s://%s%s", u.Scheme, u.Host, u.Path)
}
