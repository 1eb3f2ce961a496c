package view

import (
	"context"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Spends returns what trainings have cost, the earliest first: what is stored, and what runs have cost until now.
func (s *Snapshot) Spends() []delivery.Spend {
	var list []delivery.Spend
	for _, stored := range s.World.Spent {
		if now := s.World.Runs[stored.Run].Spend(s.At); now.Run != "" {
			stored = now
		}
		list = append(list, stored)
	}
	known := func(key delivery.Digest) bool {
		return slices.ContainsFunc(s.World.Spent, func(o delivery.Spend) bool { return o.Run == key })
	}
	for key, r := range s.World.Runs {
		if spend := r.Spend(s.At); spend.Run != "" && !known(key) {
			list = append(list, spend)
		}
	}
	slices.SortFunc(list, func(a, b delivery.Spend) int {
		if c := a.Started.Compare(b.Started); c != 0 {
			return c
		}
		return strings.Compare(string(a.Run), string(b.Run))
	})
	return list
}

// Spends returns what trainings have cost, the earliest first.
func (s *Source) Spends(context.Context) ([]delivery.Spend, error) {
	return answer(s, func(snap *Snapshot) ([]delivery.Spend, error) {
		return snap.now(s.Fleet.Devices(), s.Now()).Spends(), nil
	})
}
