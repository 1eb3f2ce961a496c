package front

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// products answers GetProducts of the service pricing: a list of texts, each the JSON of one product with its terms.
func (f *Front) products(w http.ResponseWriter, body []byte) {
	var asked struct {
		ServiceCode string
		Filters     []struct{ Field, Type, Value string }
		NextToken   string
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if err := json.Unmarshal(body, &asked); err != nil || asked.ServiceCode != "AmazonEC2" {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"__type":"InvalidParameterException","Message":"Input parameter is invalid."}`)
		return
	}
	by := map[string]string{}
	for _, filter := range asked.Filters {
		by[filter.Field] = filter.Value
	}
	answer := map[string]any{"FormatVersion": "aws_v1", "PriceList": []string{}}
	prices := f.Prices[by["regionCode"]+" "+by["instanceType"]]
	switch {
	case len(prices) == 0:
	case asked.NextToken == "": // a page may have nothing and be followed by another one
		answer["NextToken"] = firstToken
	default:
		text, _ := json.Marshal(map[string]any{
			"product":     map[string]any{"productFamily": "Compute Instance", "attributes": by, "sku": "ABC"},
			"serviceCode": "AmazonEC2",
			"terms": map[string]any{
				"OnDemand": map[string]any{"ABC.JRTCKXETXF": map[string]any{
					"priceDimensions": map[string]any{"ABC.JRT.6YS": map[string]any{"unit": "Hrs",
						"pricePerUnit": map[string]string{"USD": fmt.Sprintf("%.10f", prices[0])}}},
					"offerTermCode": "JRTCKXETXF"}},
				"Reserved": map[string]any{"ABC.X": map[string]any{"priceDimensions": map[string]any{
					"ABC.X.Y": map[string]any{"unit": "Quantity", "pricePerUnit": map[string]string{"USD": "4"}}}}}}})
		answer["PriceList"] = []string{string(text)}
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// spotPrices answers DescribeSpotPriceHistory of EC2.
func (f *Front) spotPrices(w http.ResponseWriter, form url.Values, region string) {
	instance := form.Get("InstanceType.1")
	w.Header().Set("Content-Type", "text/xml;charset=UTF-8")
	fmt.Fprint(w, `<DescribeSpotPriceHistoryResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>front`+
		`</requestId><spotPriceHistorySet>`)
	for i, price := range f.Prices[region+" "+instance] {
		if i > 0 {
			fmt.Fprintf(w, `<item><instanceType>%s</instanceType><productDescription>Linux/UNIX</productDescription>`+
				`<spotPrice>%f</spotPrice><timestamp>%s</timestamp><availabilityZone>%s%c</availabilityZone></item>`,
				instance, price, time.Now().UTC().Format(time.RFC3339), region, 'a'+i-1)
		}
	}
	fmt.Fprint(w, `</spotPriceHistorySet><nextToken/></DescribeSpotPriceHistoryResponse>`)
}
