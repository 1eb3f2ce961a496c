package cloud

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/tools/moto/front"
)

func TestPriceTable(t *testing.T) {
	var table struct {
		At     string
		Source string
		Prices map[string]map[string][2]delivery.Money
	}
	if err := json.Unmarshal(priceTable, &table); err != nil {
		t.Fatal(err)
	}
	if at, err := time.Parse(time.DateOnly, table.At); err != nil || at.After(time.Now()) || table.Source == "" {
		t.Errorf("its date is %q, its source %q", table.At, table.Source)
	}
	for region, prices := range table.Prices {
		for instance, p := range prices {
			if p[0] < delivery.Dollar/10 || p[0] > 200*delivery.Dollar || p[1] <= 0 || p[1] > p[0] {
				t.Errorf("%s in %s costs %s on demand and %s as spot", instance, region, p[0], p[1])
			}
			got, err := TablePrice(region, instance)
			if err != nil || got.OnDemand != p[0] || got.Spot != p[1] || !strings.Contains(got.Source, table.At) {
				t.Errorf("%s in %s: %+v, %v", instance, region, got, err)
			}
		}
	}
	if _, err := TablePrice("eu-central-1", "m1.small"); err == nil || !strings.Contains(err.Error(), "GetProducts") {
		t.Errorf("of an instance that it does not have: %v", err)
	}
}

// The highest of all prices counts, and the price list's own pages and refusals are no answer.
func TestPrice(t *testing.T) {
	f := &front.Front{Throttle: 3, Prices: map[string][]float64{
		"eu-central-1 g5.xlarge": {1.258, 0.61, 0.6501, 0.4}, "eu-central-1 g7.new": {3}}}
	a, err := OpenAccount(t.Context(), AccountAddress{Regions: []string{"eu-central-1"}, KeyID: "id", Key: "key",
		Endpoint: f.Start(t, "http://127.0.0.1:1")})
	if err != nil {
		t.Fatal(err)
	}
	p, err := a.Price(t.Context(), "eu-central-1", "g5.xlarge")
	if err != nil || p.OnDemand != 1_258_000 || p.Spot != 650_100 || p.Source != "AWS" || p.At.IsZero() {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err := a.Price(t.Context(), "eu-central-1", "g7.new"); err != nil || p.Spot != 0 || p.PerHour(true) != 3e6 {
		t.Errorf("without a spot price: %+v, %v", p, err)
	}
	if _, err := a.Price(t.Context(), "eu-west-1", "g5.xlarge"); err == nil ||
		!strings.Contains(err.Error(), "no price for g5.xlarge in eu-west-1") {
		t.Errorf("of an instance without a price: %v", err)
	}
	// Until AWS has answered, and if it never does, the table's price counts.
	woken := make(chan bool, 9)
	prices := &Prices{Account: a, Wake: func() { woken <- true }, Log: slog.New(slog.DiscardHandler)}
	if p, err := prices.Of("us-east-1", "g5.xlarge"); err != nil || !strings.HasPrefix(p.Source, "AOB's table") {
		t.Errorf("before the answer: %+v, %v", p, err)
	}
	<-woken
	if p, err := prices.Of("us-east-1", "g5.xlarge"); err != nil || p.OnDemand != 1_006_000 {
		t.Errorf("after a refusal: %+v, %v", p, err)
	}
	if _, err := prices.Of("eu-central-1", "g7.new"); err == nil {
		t.Error("a price that nobody knows yet")
	}
	<-woken
	if p, err := prices.Of("eu-central-1", "g7.new"); err != nil || p.OnDemand != 3*delivery.Dollar {
		t.Errorf("after the answer: %+v, %v", p, err)
	}
	if _, err := prices.Of("eu-west-1", "g7.new"); err == nil {
		t.Error("a price that nobody knows")
	}
	<-woken
	if _, err := prices.Of("eu-west-1", "g7.new"); err == nil ||
		!strings.Contains(err.Error(), "AWS has no price for") {
		t.Errorf("after a refusal of what the table does not have: %v, want AWS's own reason", err)
	}
	// A price that AWS has not confirmed for a day says so.
	key := [2]string{"eu-central-1", "g7.new"}
	old := prices.known[key]
	old.price.At = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	prices.known[key] = old
	if p, err := prices.Of(key[0], key[1]); err != nil || p.Source != "AWS on 2026-11-01, since it does not answer" {
		t.Errorf("of an old price: %+v, %v", p, err)
	}
}

func FuzzHourly(f *testing.F) {
	f.Add(`{}`)
	f.Add(`{"terms":{"OnDemand":[]}}`)
	for _, usd := range []string{"1.5", "NaN", "-1", "1e99", ""} {
		f.Add(`{"terms":{"OnDemand":{"a":{"priceDimensions":{"b":{"unit":"Hrs","pricePerUnit":{"USD":"` + usd +
			`"}}}}}}}`)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if m, err := hourly([]byte(text)); m < 0 || err != nil && m != 0 {
			t.Errorf("%s: %d, %v", text, m, err)
		}
	})
}
