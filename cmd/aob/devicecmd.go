package main

// This file lists, shows and forgets devices, and prints their tokens.

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/fleet"
	"github.com/autonomos/aob/reconciler/web"
)

func newDeviceCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "device",
		Short: "List, show and forget devices, and print their tokens",
		Long: `A device appears here after its first report. It belongs to the fleet that its agent
was started with, and sends its own token with each request.`,
		Example: "  aob device list\n  aob device show dock-1\n  aob device token demo dock-4 --config " +
			"world/aob.yaml\n  aob device forget demo dock-1",
	}
	group(c)
	c.AddCommand(newDeviceListCommand(), newDeviceShowCommand(), newDeviceForgetCommand(), newDeviceTokenCommand())
	return c
}

// A fleetDevice is a device and its fleet.
type fleetDevice struct {
	Fleet string `json:"fleet"`
	web.Device
}

// devicesOf lists the devices in a status: of all fleets, or of the one named only.
func devicesOf(s web.Status, only string) []fleetDevice {
	list := []fleetDevice{}
	for _, f := range s.Fleets {
		for _, d := range f.Devices {
			if only == "" || only == f.Name {
				list = append(list, fleetDevice{f.Name, d})
			}
		}
	}
	return list
}

func newDeviceListCommand() *cobra.Command {
	return query(&cobra.Command{
		Use:     "list [FLEET]",
		Short:   "List the devices with their last reports",
		Example: "  aob device list\n  aob device list demo -o json | jq '.[] | select(.silent)'",
	}, func(c *cobra.Command, api *web.Client, args []string) (any, func(*terminal), error) {
		s, err := api.Status(c.Context())
		if err != nil {
			return nil, nil, err
		}
		if len(args) == 1 && !slices.ContainsFunc(s.Fleets, func(f web.Fleet) bool { return f.Name == args[0] }) {
			return nil, nil, hinted{fmt.Errorf("there is no fleet %q", args[0]), "the fleets are " + fleetNames(s)}
		}
		list := devicesOf(s, strings.Join(args, ""))
		return list, func(t *terminal) {
			if len(list) == 0 {
				t.printf("no device has reported yet; aob-agent run --help shows how to start one\n")
				return
			}
			rows := [][]cell{heading("FLEET", "DEVICE", "PHASE", "VERSION", "SEEN", "")}
			for _, d := range list {
				rows = append(rows, append(cells(d.Fleet), deviceCells(d.Device, time.Now())...))
			}
			t.table("", rows)
		}, nil
	})
}

// fleetNames lists the fleets of a status.
func fleetNames(s web.Status) string {
	return cmp.Or(strings.Join(delivery.Each(s.Fleets, func(f web.Fleet) string { return f.Name }), ", "), "none")
}

func newDeviceShowCommand() *cobra.Command {
	return query(&cobra.Command{
		Use:     "show DEVICE",
		Short:   "Show what is known about a device",
		Example: "  aob device show dock-1\n  aob device show dock-1 -o json",
	}, func(c *cobra.Command, api *web.Client, args []string) (any, func(*terminal), error) {
		s, err := api.Status(c.Context())
		if err != nil {
			return nil, nil, err
		}
		list := slices.DeleteFunc(devicesOf(s, ""), func(d fleetDevice) bool { return d.ID != args[0] })
		if len(list) == 0 {
			return nil, nil, hinted{fmt.Errorf("no device %q has reported", args[0]),
				"list those that have with: aob device list"}
		}
		return list, func(t *terminal) {
			for _, d := range list {
				t.device(d, time.Now())
			}
		}, nil
	})
}

// device prints one device.
func (t *terminal) device(d fleetDevice, now time.Time) {
	rows := [][]cell{}
	add := func(name, value string) {
		if value != "" {
			rows = append(rows, []cell{{name, faint}, {text: value}})
		}
	}
	add("device", d.ID+", of fleet "+d.Fleet)
	add("seen", ago(d.Seen, now))
	add("phase", phaseOf(d.Device))
	if d.Version > 0 {
		add("serves", fmt.Sprintf("version %d, bundle %s, from slot %s", d.Version, d.Bundle.Short(), d.Slot))
	}
	if d.Failed != "" {
		add("failed", "bundle "+d.Failed.Short()+": "+d.Why)
	} else {
		add("why", d.Why)
	}
	for _, n := range d.Notes {
		add("note", n)
	}
	add("document", fmt.Sprint(d.Desired))
	label := func(name string) string { return name + "=" + d.Labels[name] }
	add("labels", strings.Join(delivery.Each(slices.Sorted(maps.Keys(d.Labels)), label), " "))
	add("downloaded", fmt.Sprintf("%.1f MB", float64(d.Downloaded)/1e6))
	add("installation", d.Installed)
	t.table("", rows)
}

func newDeviceForgetCommand() *cobra.Command {
	return query(&cobra.Command{
		Use:   "forget FLEET DEVICE",
		Short: "Remove a device that is gone",
		Long: `Forget removes a device from its fleet: rollouts no longer count it or wait for it. If
it reports again it is a new device. Its token stays valid, because it is derived from
the names of fleet and device. Changing the fleet's secret invalidates all tokens.`,
		Example: "  aob device forget demo dock-1",
	}, func(c *cobra.Command, api *web.Client, args []string) (any, func(*terminal), error) {
		return map[string]string{"fleet": args[0], "forgotten": args[1]},
			func(t *terminal) { t.printf("forgot device %s of fleet %s\n", args[1], args[0]) },
			api.ForgetDevice(c.Context(), args[0], args[1])
	})
}

// warnOfFleet prints a warning if the running server does not know a fleet. If no server runs, it prints nothing.
func warnOfFleet(c *cobra.Command, st state, fleet string) error {
	ctx, cancel := context.WithTimeout(c.Context(), 5*time.Second)
	defer cancel()
	s, err := web.NewClient(st.path("aob.sock")).Status(ctx)
	if err == nil && !slices.ContainsFunc(s.Fleets, func(f web.Fleet) bool { return f.Name == fleet }) {
		t := newTerminal(c.ErrOrStderr())
		t.printf("aob: warning: there is no fleet %q on main, so a device with this token gets nothing to run; the "+
			"fleets are %s\n", fleet, fleetNames(s))
		return t.flush()
	}
	return nil
}

func newDeviceTokenCommand() *cobra.Command {
	var o output
	var config string
	c := &cobra.Command{
		Use:   "token FLEET DEVICE",
		Short: "Print the token of a device",
		Long: `Token prints the token that a device's agent sends with each request. It is derived
from the fleet's secret, which stays on the server. It is valid only for this device in
this fleet.`,
		Example: "  aob device token demo dock-4 --config world/aob.yaml > dock-4.token\n  aob-agent run --fleet " +
			"demo --device dock-4 --token-file dock-4.token …",
		RunE: func(c *cobra.Command, args []string) error {
			s, err := loadServer(config)
			if err != nil {
				return err
			}
			secret, err := fleetSecret(s, state(s.State))
			if err != nil {
				return err
			}
			token := fleet.DeviceToken(secret, args[0], args[1])
			if _, _, ok := fleet.TokenOwner(token); !ok {
				return hinted{fmt.Errorf("fleet %q, device %q: want lower-case letters, digits and dashes, at most 64",
					args[0], args[1]), "aob device token --help shows how"}
			}
			if err := warnOfFleet(c, state(s.State), args[0]); err != nil {
				return err
			}
			return o.print(c.OutOrStdout(), map[string]string{"fleet": args[0], "device": args[1], "token": token},
				func(t *terminal) { t.printf("%s\n", token) })
		},
	}
	o.register(c)
	c.Flags().StringVar(&config, "config", "aob.yaml", "the server's configuration")
	return c
}
