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
	"github.com/autonomos/aob/reconciler/cloud"
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
	"github.com/autonomos/aob/reconciler/shelf"
	"github.com/autonomos/aob/reconciler/store"
	"github.com/autonomos/aob/reconciler/trust"
	"github.com/autonomos/aob/reconciler/view"
	"github.com/autonomos/aob/reconciler/web"
	"github.com/autonomos/aob/reconciler/work"
)

// newServeCommand returns the command that runs the server.
func newServeCommand() *cobra.Command {
	var config, debug string
	var adopt bool
	c := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Run the server: train, judge and release what the repository asks for",
		Long: `Serve watches the intent repository. It trains, judges and releases what the
repository asks for. All data is in the folder that state: names. The server can be
killed and restarted at any time; runs continue without it.

A copied state folder (a backup, or a copy for a test) still belongs to the original
server. Serve detects a copy and only watches: it starts no run, ends none, pushes
nothing and publishes nothing. If the original server is lost or will not run again,
--adopt-state takes the copy over.`,
		Example: "  aob init world\n  aob serve --config world/aob.yaml",
		RunE:    func(c *cobra.Command, _ []string) error { return serve(c.Context(), config, debug, adopt) },
	}
	c.Flags().StringVar(&config, "config", "aob.yaml",
		"the server's configuration `file`; aob schema server lists its fields")
	c.Flags().BoolVar(&adopt, "adopt-state", false,
		"take over a copied state folder; the original server must not run any more")
	c.Flags().StringVar(&debug, "debug-address", "",
		"serve profiles for go tool pprof on this `address` of this machine, such as 127.0.0.1:6060")
	return c
}

func newLog() *slog.Logger {
	return slog.New(slog.NewJSONHandler(delivery.LogWriter{W: os.Stderr}, nil))
}

func serve(ctx context.Context, config, debug string, adopt bool) (err error) {
	log := newLog()
	p, err := openServer(ctx, config, adopt, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	p.web.DebugAddress = debug
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var background sync.WaitGroup
	background.Go(func() { p.store.Run(ctx) })
	background.Go(func() { p.archive.Recheck(ctx, p.loop.Wake) })
	background.Go(func() { logDiagnoses(ctx, p.settings, log) })
	if p.watchOnly == nil {
		background.Go(func() { p.papers.Run(ctx) })
		every := time.Duration(0)
		if p.settings.Retention.Automatic {
			every = time.Duration(p.settings.Retention.Every)
		}
		background.Go(func() { p.shelf.Run(ctx, every) })
	}
	if p.sweeper != nil {
		background.Go(func() { p.sweeper.Run(ctx, time.Duration(p.settings.AWS.Sweep)) })
	}
	defer background.Wait()
	defer cancel()
	failed := make(chan error, 2)
	go func() { failed <- p.web.Run(ctx); cancel() }()
	go func() { failed <- p.loop.Run(ctx); cancel() }()
	log.Info("serving", "repository", redacted(p.settings.Repository), "state", string(p.state))
	for range cap(failed) {
		if part := <-failed; !errors.Is(part, context.Canceled) { // canceled: a normal end
			err = errors.Join(err, part)
		}
	}
	return err
}

// A server is the loop with the API for people, devices and the forge. It is
// opened without being started: aob serve runs it, aob plan --config plans once.
type server struct {
	settings intent.Server
	config   string // absolute path of the configuration
	state    state
	log      *slog.Logger
	metrics  *web.Metrics

	folder   durable.Folder
	evidence *trust.Key
	desired  *trust.Key
	trusted  []trust.PublicKey
	secret   string // device tokens are derived from it
	ledger   *ledger.Ledger
	bundles  *artifact.Store
	trainers intent.Trainers
	mask     func() delivery.Mask // of the configuration's secrets
	mirror   *git.Mirror
	signed   forge.Signed
	app      *forge.App // nil for none
	// present is the forge's, before the loop begins; nil for none.
	present   func(ctx context.Context, url string) (string, error)
	devices   *fleet.Server
	loop      *reconciler.Reconciler
	store     *archive.Check
	archive   *archive.Archive
	papers    *archive.Papers
	shelf     *shelf.Shelf
	sweeper   *cloud.Sweeper // nil without an account of AWS
	source    *view.Source
	web       web.Server
	watchOnly *delivery.Blocked // why the server may only watch; nil when it may act
	closers   []func() error
}

// close releases what the server opened, last opened first.
func (p *server) close() error {
	var err error
	for _, c := range slices.Backward(p.closers) {
		err = errors.Join(err, c())
	}
	return err
}

// openServer opens a server from its configuration. The state folder is locked
// until close. A copied state folder is only watched, unless adopt is set.
func openServer(ctx context.Context, config string, adopt bool, log *slog.Logger) (_ *server, err error) {
	s, err := loadServer(config)
	if err != nil {
		return nil, err
	}
	if config, err = filepath.Abs(config); err != nil {
		return nil, err
	}
	p := &server{settings: s, config: config, state: state(s.State), log: log, metrics: web.NewMetrics()}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if err := p.openState(adopt); err != nil {
		return nil, err
	}
	for _, open := range []func(context.Context) error{p.openKeys, p.openStores, p.openLoop, p.openCloud, p.openSite} {
		if err := open(ctx); err != nil {
			return nil, err
		}
	}
	p.loop.Init()
	return p, nil
}

// openState locks the state folder and reads its identity.
func (p *server) openState(adopt bool) error {
	if err := durable.PrivateFolder(string(p.state)); errors.Is(err, durable.ErrNotPrivate) {
		p.log.Warn("other users of this machine may read the state folder: give it to the user of aob serve, and set "+
			"its mode to 0700", "error", err.Error())
	} else if err != nil {
		return err
	}
	lock, err := durable.TryLock(p.state.path("serve.lock"))
	if errors.Is(err, durable.ErrLocked) {
		return delivery.Blockedf("use the running server (aob plan without --config), or set another state folder",
			"an aob serve works in %s", p.state)
	}
	if err != nil {
		return err
	}
	p.closers = append(p.closers, lock.Unlock)
	if p.folder, p.watchOnly, err = identify(p.state, p.config, adopt); err != nil {
		return err
	}
	if p.watchOnly != nil {
		p.log.Warn("this server only watches", "why", p.watchOnly.What, "hint", p.watchOnly.Do)
	}
	return nil
}

// openKeys reads the signing keys and the fleet secret. Missing ones are created.
func (p *server) openKeys(context.Context) (err error) {
	keys := p.settings.Keys
	if p.evidence, err = loadKey(cmp.Or(keys.Evidence, p.state.path("keys", "evidence.key"))); err != nil {
		return err
	}
	if p.desired, err = loadKey(cmp.Or(keys.Desired, p.state.path("keys", "desired.key"))); err != nil {
		return err
	}
	if p.trusted, err = loadTrusted(keys.Trusted); err != nil {
		return err
	}
	p.secret, err = fleetSecret(p.settings, p.state)
	return err
}

// openStores opens the ledger, the bundles, the trainers and the git mirror.
func (p *server) openStores(ctx context.Context) (err error) {
	if p.ledger, err = ledger.Open(ctx, p.state.ledger()); err != nil {
		return err
	}
	p.closers = append(p.closers, p.ledger.Close)
	// A store that cannot be read is not an error here: fleets keep what is published, and aob status shows the error.
	if p.bundles, err = artifact.At(p.state.bundles()); err != nil {
		return err
	}
	p.closers = append(p.closers, func() error {
		if p.archive != nil {
			p.archive.Statements.Flush()
		}
		if err := p.bundles.Fold(context.Background()); err != nil {
			p.log.Warn("index.json of the store is not up to date: other tools and older versions of aob miss the "+
				"newest statements", "error", err.Error())
		}
		return nil
	})
	p.bundles.LockWait = time.Second // the loop waits for this lock when it signs
	if p.trainers, err = installTrainers(ctx, p.settings, p.state); err != nil {
		return err
	}
	if err := checkSecrets(p.settings, p.trainers); err != nil {
		return err
	}
	p.mask = secretMask(p.settings)
	kind, settings := p.settings.Forge.Kind()
	if p.app, err = appOf(settings); err != nil {
		return err
	}
	p.mirror, err = git.Open(p.state.mirror(), git.Remote{URL: p.settings.Repository,
		Auth: gitAuth(kind, settings, p.app, p.log),
		Present: func(ctx context.Context, url string) (string, error) {
			if p.present == nil {
				return url, nil
			}
			return p.present(ctx, url)
		},
		Transport: p.metrics.CountGit(git.Transport()), Main: p.settings.Main, Pulls: forge.Kinds[kind].Pulls,
		Refusals: forge.Kinds[kind].Refusals})
	if err != nil {
		return err
	}
	p.closers = append(p.closers, p.mirror.Close)
	commits := p.settings.Commits
	committer := git.Committer{Name: commits.Name, Email: commits.Email}
	if commits.SigningKey != "" {
		key, err := trust.LoadSSH(commits.SigningKey)
		if err != nil {
			return err
		}
		committer.Sign = func(commit []byte) ([]byte, error) { return key.Sign("git", commit) }
		p.signed = forge.Signed{Email: commits.Email, Key: key.Public()}
	}
	p.mirror.CommitAs(committer)
	return nil
}

// openLoop builds the loop with its runs, evidence and fleets.
func (p *server) openLoop(ctx context.Context) error {
	s, st := p.settings, p.state
	settings, err := planServer(ctx, s, p.trainers)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	r := &reconciler.Reconciler{
		Repo: p.mirror, Ledger: p.ledger, Metrics: p.metrics,
		Parser: intent.NewCache(intent.Options{Trainers: p.trainers, Datasets: datasetNames(s), Zone: knownZone}),
		Main:   s.Main, GitPoll: time.Duration(s.Poll.Git), Poll: time.Duration(s.Poll.Forge),
		Progress: 5 * time.Second,
		Server:   settings,
		Datasets: datasets(s),
		Log:      p.log, Now: time.Now,
	}
	p.loop = r
	r.Trackers, r.Bundles = trackers(s), bundlesAddress(s)
	r.Epochs = func(key delivery.Digest) ([]byte, error) {
		data, err := durable.ReadNoFollow(filepath.Join(run.Folder(st.runs(), delivery.RunTrain, key), "output",
			"metrics.jsonl"), maxMetrics)
		return []byte(p.mask().Text(string(data))), err
	}
	r.Runs = &run.Store{Dir: st.runs(), Command: []string{self, "runner", "--config", p.config}, StateID: p.folder.ID,
		Env: runnerEnv(s, p.trainers), Mask: p.mask, Wake: r.Wake}
	statements := evidence.New(p.bundles, p.evidence, p.trusted)
	statements.Cache, statements.Log = st.verified(), p.log
	p.archive = &archive.Archive{Bundles: p.bundles, Statements: statements, Log: p.log}
	r.Evidence = p.archive
	p.papers = &archive.Papers{Bundles: p.bundles, Statements: statements, Server: strings.TrimRight(s.Listen.URL, "/"),
		Log: p.log}
	if p.folder.From != "" { // the original may have published versions after it was copied
		r.Server.Least = fleet.LeastVersion(p.folder.Since)
	}
	r.Server.Seed = fleet.Seed(p.secret)
	p.devices, err = fleet.Open(ctx, fleet.Config{Dir: string(st), Key: p.desired, Secret: p.secret, Registry: p.ledger,
		Least: r.Server.Least, Expiry: time.Duration(s.Fleets.Expiry), Deadline: time.Duration(s.Fleets.Deadline),
		MaxWaiters: web.SiteLimits().Connections / 2, Wake: r.Wake, Log: p.log})
	if err != nil {
		return err
	}
	r.Fleet = p.devices
	p.store = archive.NewCheck(p.bundles, r.Wake, p.log, time.Now)
	r.Blobs = p.store
	return nil
}

// planServer returns what the planner knows of a server.
func planServer(ctx context.Context, s intent.Server, trainers intent.Trainers) (plan.Server, error) {
	provider, err := detectorOf(s).Provider(ctx)
	if err != nil {
		return plan.Server{}, fmt.Errorf("detector.profile %s: %w", s.Detector.Profile, err)
	}
	protocol, err := work.Protocol()
	budget := plan.Budget{AutoGo: s.AutoGo}
	if s.AWS != nil {
		budget.Region, budget.Day, budget.Month = s.AWS.Regions[0], s.AWS.Day, s.AWS.Month
		budget.Types = instancesOf(s)
	}
	return plan.Server{Budget: budget, Trainers: trainers.Descriptions(), Weights: baseWeights(s), Protocol: protocol,
		Numerics: detect.Numerics, Provider: provider, DataTime: delivery.Duration(2 * time.Hour),
		EvalTime: s.Detector.Limit, NextPoll: s.Fleets.Poll, Expiry: s.Fleets.Expiry, Deadline: s.Fleets.Deadline,
		Trainings: s.Trainings, Runs: cmp.Or(s.Runs, max(1, runtime.NumCPU()-1)),
		Trackers: s.Track.Trackers(), URL: strings.TrimRight(s.Listen.URL, "/")}, err
}

// openSite connects to the forge and builds the HTTP server.
func (p *server) openSite(context.Context) error {
	s, st, r := p.settings, p.state, p.loop
	files, err := filesOf(s)
	if err != nil {
		return err
	}
	requests := view.NewRequests(p.ledger, p.log)
	r.Requests = requests
	p.source = &view.Source{Loop: r, Requests: requests, Fleet: p.devices, Parser: r.Parser, Main: s.Main,
		Now: time.Now, Logs: []view.Files{store.Folder(st), files}, Mask: p.mask, Commits: p.mirror}
	if p.shelf, err = p.newShelf(); err != nil {
		return err
	}
	p.source.Shelf = p.shelf
	p.metrics.Watch(p.source)
	connection, err := connect(s, p.app, forge.Settings{Main: s.Main, Signed: p.signed, Address: s.Repository,
		Git: p.mirror, Rows: p.ledger, Kept: p.ledger}, p.log)
	if err != nil {
		return err
	}
	r.Forge, p.source.Merger, p.source.UserComments = connection.Forge, connection.Merge, connection.UserComments
	p.present = connection.Present
	r.Spare = connection.Spare
	r.CheckDetails, r.Queue = connection.Details, connection.Queue
	if connection.Deployments != nil {
		r.Deployments = connection.Deployments
	}
	if connection.Committer != nil {
		r.Committer = connection.Committer
	}
	r.Server.Socket = connection.UserComments != nil
	p.web = web.Server{Source: p.source, Metrics: p.metrics, Log: p.log,
		Socket:  cmp.Or(s.Socket, st.path("aob.sock")),
		Bundles: p.bundles.Handler(nil),
		Address: web.Address{Address: s.Listen.Address, Certificate: s.Listen.Certificate, Key: s.Listen.Key},
		Listens: p.devices.Listen, MetricsAddress: s.Listen.Metrics,
		Site: web.Site{Fleet: p.devices.Handler(), Bundles: p.devices.Guard(p.bundles.Handler(p.metrics.BytesServed)),
			Pictures: web.Pictures(files, p.source.PicturesOf), Ready: p.source.Ready},
	}
	if connection.Webhook != nil {
		p.web.Site.Webhook = webhookOf(connection, r, p.metrics, p.log)
	}
	if p.watchOnly != nil {
		r.Watch(*p.watchOnly)
		p.source.Fleet = r.Fleet
		// A configured socket path may be the original server's.
		p.web.Refuse, p.web.Socket = *p.watchOnly, st.path("aob.sock")
	}
	return nil
}

// identify returns the identity of a state folder. If the folder is a copy, it also returns why the server may only
// watch. With adopt set, a copy gets an identity of its own; that fails while a server works in the original.
func identify(st state, config string, adopt bool) (f durable.Folder, watchOnly *delivery.Blocked, err error) {
	f, err = durable.OpenFolder(string(st))
	c, ok := errors.AsType[*durable.Copied](err)
	_, newer := errors.AsType[delivery.Blocked](err)
	switch {
	case err == nil || newer:
		return f, nil, err
	case !ok:
		return f, nil, delivery.Blockedf(
			"restore that file from a backup; or remove it, if no other server works with this folder or a copy of it",
			"cannot read the identity of the state folder: %s", err)
	case !adopt:
		return f, &delivery.Blocked{What: c.Error() +
			". This server only watches: it starts, ends, pushes, publishes and comments nothing",
			Do: fmt.Sprintf("if the original server is lost or will not run again, stop this server and take the "+
				"folder over: aob serve --config %s --adopt-state", config)}, nil
	}
	original := state(c.Of.Path)
	if other, err := durable.ReadFolder(string(original)); err == nil && other.ID == c.Of.ID && c.Of.Path != c.Path {
		lock, err := durable.TryLock(original.path("serve.lock"))
		if errors.Is(err, durable.ErrLocked) {
			return f, nil, delivery.Blockedf("stop that server first",
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

// fleetSecret returns the secret that device tokens are derived from. The first start creates its file.
func fleetSecret(s intent.Server, st state) (string, error) {
	if s.Devices.SecretEnv != "" {
		return secret(s.Devices.SecretEnv, "")
	}
	path := cmp.Or(s.Devices.SecretFile, st.path("fleet.secret"))
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

// redacted returns an address without its user and password.
func redacted(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return address
	}
	return fmt.Sprintf("%s://%s%s", u.Scheme, u.Host, u.Path)
}
