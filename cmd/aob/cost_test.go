package main

import (
	"context"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Spends returns what four trainings have cost.
func (s *shop) Spends(context.Context) ([]delivery.Spend, error) {
	spend := func(n, pull int, model, by string, at time.Time, cost delivery.Money,
		phase delivery.RunPhase) delivery.Spend {
		return delivery.Spend{Run: delivery.DigestOf("run", n), Started: at, Cost: cost, Phase: phase,
			Took: delivery.Duration(time.Hour), Wasted: phase == delivery.RunStopped,
			Quote: delivery.Quote{Model: model, Pull: pull, By: by, Ceiling: 8 * delivery.Dollar}}
	}
	november := time.Date(2026, 11, 3, 9, 0, 0, 0, time.UTC)
	return []delivery.Spend{
		spend(1, 3, "shapes", "maria", november.AddDate(0, -1, 0), 1_258_000, delivery.RunDone),
		spend(2, 4, "shapes", "ben", november, 420_000, delivery.RunStopped),
		spend(3, 4, "shapes", "ben", november.Add(time.Hour), 2_500_000, delivery.RunDone),
		spend(4, 0, "pallets", "maria", november.AddDate(0, 0, 20), 3_100_000, delivery.RunRunning),
	}, nil
}
