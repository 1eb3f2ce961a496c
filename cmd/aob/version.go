package main

import (
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersionCommand() *cobra.Command {
	var o output
	c := &cobra.Command{
		Use:     "version",
		Short:   "Print the version of aob",
		Example: "  aob version\n  aob version -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			v := versionOf(debug.ReadBuildInfo())
			return o.print(c.OutOrStdout(), v, func(t *terminal) {
				t.printf("aob %s", v.Version)
				if v.Commit != "" {
					t.printf(" (%s)", short(v.Commit))
				}
				t.printf(" %s\n", v.Go)
			})
		},
	}
	o.register(c)
	return c
}

// version is what a binary knows of itself.
type version struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Changed bool   `json:"changed,omitempty"` // built from a tree with uncommitted changes
	Go      string `json:"go"`
}

func versionOf(info *debug.BuildInfo, ok bool) version {
	if !ok {
		return version{Version: "unknown"}
	}
	v := version{Version: info.Main.Version, Go: info.GoVersion}
	if v.Version == "" || v.Version == "(devel)" {
		v.Version = "devel"
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value
		case "vcs.modified":
			v.Changed = s.Value == "true"
		}
	}
	return v
}
