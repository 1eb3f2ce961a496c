package cloud

// This file finds what instances cost.

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/pricing"
	pricingtypes "github.com/aws/aws-sdk-go-v2/service/pricing/types"

	"github.com/autonomos/aob/reconciler/delivery"
)

// The table of prices that AOB has, for servers that may not ask for prices. TestPriceTable reads it.
//
//go:embed prices.json
var priceTable []byte

// TablePrice returns a price of AOB's own table.
func TablePrice(region, instance string) (delivery.Price, error) {
	var table struct {
		At     string
		Source string
		Prices map[string]map[string][2]delivery.Money
	}
	d := json.NewDecoder(bytes.NewReader(priceTable))
	d.DisallowUnknownFields()
	if err := d.Decode(&table); err != nil {
		return delivery.Price{}, err
	}
	at, err := time.Parse(time.DateOnly, table.At)
	if err != nil {
		return delivery.Price{}, err
	}
	p, ok := table.Prices[region][instance]
	if !ok {
		return delivery.Price{}, delivery.Blockedf("let the server's role ask for prices (pricing:GetProducts), or "+
			"take another instance", "AOB's table of prices of %s has no %s in %s", table.At, instance, region)
	}
	return delivery.Price{Region: region, Instance: instance, OnDemand: p[0], Spot: p[1], At: at,
		Source: "AOB's table of " + table.At}, nil
}

// The regions that answer questions about prices, of all regions.
const pricingRegion = "us-east-1"

// Price asks what an instance costs in a region now.
func (a *Account) Price(ctx context.Context, region, instance string) (delivery.Price, error) {
	p := delivery.Price{Region: region, Instance: instance, At: time.Now().UTC(), Source: sourceAWS}
	client := pricing.NewFromConfig(a.config, func(o *pricing.Options) { o.Region = pricingRegion })
	input := &pricing.GetProductsInput{ServiceCode: aws.String("AmazonEC2"), MaxResults: aws.Int32(100)}
	for field, value := range map[string]string{"instanceType": instance, "regionCode": region,
		"operatingSystem": "Linux", "tenancy": "Shared", "preInstalledSw": "NA", "capacitystatus": "Used"} {
		input.Filters = append(input.Filters, pricingtypes.Filter{Field: aws.String(field), Value: aws.String(value),
			Type: pricingtypes.FilterTypeTermMatch})
	}
	products := pricing.NewGetProductsPaginator(client, input)
	err := pages(products.HasMorePages, func() error {
		page, err := products.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, text := range page.PriceList {
			amount, err := hourly([]byte(text))
			if err != nil {
				return err
			}
			p.OnDemand = max(p.OnDemand, amount) // of several the highest: nobody agrees to a price that is too low
		}
		return nil
	})
	if err != nil {
		return p, explainCall(pricingRegion, err)
	}
	if p.OnDemand == 0 {
		return p, delivery.Blockedf("check the instance's name, and whether the region has it",
			"AWS has no price for %s in %s", instance, region)
	}
	p.Spot, err = a.spotPrice(ctx, region, instance)
	return p, err
}

// hourly returns the price of an hour in one entry of a price list. It is 0 if the entry has none.
func hourly(text []byte) (amount delivery.Money, err error) {
	var entry struct {
		Terms struct {
			OnDemand map[string]struct {
				PriceDimensions map[string]struct {
					Unit         string
					PricePerUnit map[string]string
				}
			}
		}
	}
	if err := json.Unmarshal(text, &entry); err != nil {
		return 0, fmt.Errorf("the price list of AWS cannot be read: %w", err)
	}
	for _, term := range entry.Terms.OnDemand {
		for _, d := range term.PriceDimensions {
			usd, ok := d.PricePerUnit["USD"]
			if d.Unit != "Hrs" || !ok {
				continue
			}
			n, err := strconv.ParseFloat(usd, 64)
			if err != nil {
				return 0, errors.New("the price list of AWS has a price that is no number")
			}
			amount = max(amount, delivery.Dollars(n))
		}
	}
	return amount, nil
}

// spotPrice returns the highest present spot price of a region's zones; 0 if there is none.
func (a *Account) spotPrice(ctx context.Context, region, instance string) (highest delivery.Money, err error) {
	now := time.Now()
	p := ec2.NewDescribeSpotPriceHistoryPaginator(a.ec2(region), &ec2.DescribeSpotPriceHistoryInput{
		InstanceTypes: []ec2types.InstanceType{ec2types.InstanceType(instance)}, StartTime: &now, EndTime: &now,
		ProductDescriptions: []string{"Linux/UNIX"}})
	err = pages(p.HasMorePages, func() error {
		page, err := p.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, s := range page.SpotPriceHistory {
			if string(s.InstanceType) != instance {
				continue
			}
			n, err := strconv.ParseFloat(aws.ToString(s.SpotPrice), 64)
			if err != nil {
				return errors.New("a spot price is no number")
			}
			highest = max(highest, delivery.Dollars(n))
		}
		return nil
	})
	return highest, explainCall(region, err)
}

// Prices remembers prices, and asks for them beside the loop.
type Prices struct {
	Account *Account
	Wake    func() // called when a price is known that was not
	Log     *slog.Logger

	mu    sync.Mutex
	known map[[2]string]knownPrice
}

type knownPrice struct {
	price  delivery.Price
	err    error // why not even the table has it
	asked  time.Time
	asking bool
}

// Limits of remembered prices.
const (
	priceLasts = time.Hour
	priceTime  = 2 * time.Minute // of one question
	priceOld   = 24 * time.Hour  // from then on people are told its date
)

// sourceAWS is the source of a price that AWS has said.
const sourceAWS = "AWS"

// Of returns the last known price of an instance, and asks for it anew if it is old. It returns at once. The price is
// that of AOB's table until AWS answers, and if it refuses; an old one says so in its source. Without a price an error
// says what to do.
func (p *Prices) Of(region, instance string) (delivery.Price, error) {
	key := [2]string{region, instance}
	p.mu.Lock()
	defer p.mu.Unlock()
	k, ok := p.known[key]
	if !ok {
		if p.known == nil {
			p.known = map[[2]string]knownPrice{}
		}
		k.price, k.err = TablePrice(region, instance)
	}
	if !k.asking && time.Since(k.asked) > priceLasts {
		k.asking = true
		go p.ask(region, instance)
	}
	p.known[key] = k
	price := k.price
	if price.Source == sourceAWS && time.Since(price.At) > priceOld {
		price.Source += " on " + price.At.UTC().Format(time.DateOnly) + ", since it does not answer"
	}
	return price, k.err
}

func (p *Prices) ask(region, instance string) {
	ctx, cancel := context.WithTimeout(context.Background(), priceTime)
	defer cancel()
	price, err := p.Account.Price(ctx, region, instance)
	if err != nil {
		p.Log.Warn("AWS does not say what an instance costs; the last known price is used", "instance", instance,
			"region", region, "error", err.Error())
	}
	p.mu.Lock()
	k := p.known[[2]string{region, instance}]
	k.asking, k.asked = false, time.Now()
	switch {
	case price.OnDemand > 0: // the spot price may be missing
		k.price, k.err = price, nil
	case k.err != nil: // the table does not have it either
		k.err = err
	}
	p.known[[2]string{region, instance}] = k
	p.mu.Unlock()
	if p.Wake != nil {
		p.Wake()
	}
}
