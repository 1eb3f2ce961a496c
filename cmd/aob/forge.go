package main

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/forge"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/web"
)

// gitAuth returns who reads the repository; nil where nobody has to log in. app is nil for none.
func gitAuth(kind string, f intent.ServerForgeSettings, app *forge.App, log *slog.Logger) func() (user, token string) {
	if forge.Kinds[kind].TokenHelp == "" {
		return nil
	}
	return func() (string, string) {
		if app != nil {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			token, err := app.Token(ctx)
			if err != nil {
				log.Error("GitHub gives the App no token to read the repository", "error", err.Error())
			}
			return forge.Kinds[kind].GitUser, token
		}
		token, err := secret(f.TokenEnv, f.TokenFile)
		if err != nil {
			return "", ""
		}
		return forge.Kinds[kind].GitUser, token
	}
}

// appOf returns the GitHub App that AOB is; nil for none.
func appOf(f intent.ServerForgeSettings) (*forge.App, error) {
	if f.App == nil {
		return nil, nil
	}
	const maxKey = 64 << 10
	return forge.NewApp(forge.AppSettings{URL: f.URL, Repo: f.Repo, ID: int64(f.App.ID),
		Installation: int64(f.App.Installation),
		Key:          func() ([]byte, error) { return durable.ReadFile(f.App.KeyFile, maxKey) }})
}

// checkToken says why the configuration gives no token for the forge.
func checkToken(kind string, f intent.ServerForgeSettings) error {
	do := forge.Kinds[kind].TokenHelp
	token, err := secret(f.TokenEnv, f.TokenFile)
	switch {
	case do == "" || f.App != nil || err == nil && token != "":
		return nil
	case f.TokenEnv != "":
		return delivery.Blockedf(do, "forge.%s.tokenEnv: the environment variable %s is empty", kind, f.TokenEnv)
	case err == nil && f.TokenFile != "":
		return delivery.Blockedf(do, "forge.%s.tokenFile: %s is empty", kind, f.TokenFile)
	case err == nil:
		return delivery.Blockedf(do, "forge.%s names no token", kind)
	}
	return delivery.Blockedf(do, "forge.%s.tokenFile: %s", kind, err)
}

// connect connects to the server's forge, as an App if there is one.
func connect(s intent.Server, app *forge.App, settings forge.Settings, log *slog.Logger) (forge.Connection, error) {
	kind, f := s.Forge.Kind()
	if err := checkToken(kind, f); err != nil {
		return forge.Connection{}, err
	}
	hookSecret, err := secret(f.WebhookSecretEnv, f.WebhookSecretFile)
	if err != nil {
		return forge.Connection{}, err
	}
	if s.Listen.URL != "" && (f.WebhookSecretEnv != "" || f.WebhookSecretFile != "") {
		settings.Hooks = strings.TrimRight(s.Listen.URL, "/") + "/webhook"
	}
	settings.URL, settings.Repo, settings.HookSecret, settings.App = f.URL, cmp.Or(f.Project, f.Repo), hookSecret, app
	settings.Signs = f.Signs
	settings.Token = func() string {
		token, err := secret(f.TokenEnv, f.TokenFile)
		if err != nil {
			log.Error("the forge's token cannot be read", "error", err.Error())
		}
		return token
	}
	return forge.Kinds[kind].Connect(settings)
}

// webhookOf wakes the loop where the forge says that something happened.
func webhookOf(c forge.Connection, r *reconciler.Reconciler, metrics *web.Metrics, log *slog.Logger) http.Handler {
	return web.Webhook{Unsigned: forge.ErrSignature, Wake: func() { r.Refresh("") }, Metrics: metrics, Log: log,
		Read: func(req *http.Request) (string, error) {
			event, err := c.Webhook(req)
			if err == nil && event.Commit != "" && strings.Contains(" status check_run check_suite ", event.Kind) {
				r.Refresh(event.Commit)
			}
			return strings.Join([]string{event.Kind, event.Ref, event.Commit}, " "), err
		}}
}
