package gate

import "github.com/autonomos/aob/reconciler/delivery"

func Resamples(checks []delivery.GateCheck, classes int) int { return 1000 }
