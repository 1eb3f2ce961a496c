package front

// This file answers what moto does not: what a policy allows, and quotas.

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
)

// A policy is a policy of IAM.
type policy struct {
	Statement []struct {
		Effect           string
		Action, Resource texts
		Condition        map[string]map[string]texts // by operator and key
	}
}

// texts are one text or several, as policies have them.
type texts []string

// UnmarshalJSON implements json.Unmarshaler.
func (t *texts) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*t = texts{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(t))
}

// like reports whether a text is of a pattern, in which * stands for any text.
func like(pattern, text string) bool {
	escape := strings.NewReplacer("/", "\x00", "[", `\[`, "\\", `\\`)
	ok, err := path.Match(escape.Replace(pattern), escape.Replace(text))
	return ok && err == nil
}

// decide says what a policy decides about an action, as a simulation of IAM does.
func decide(document, action, resource string, context map[string]string) (string, error) {
	var p policy
	if err := json.Unmarshal([]byte(document), &p); err != nil {
		return "", err
	}
	decision := "implicitDeny"
	for _, s := range p.Statement {
		of := slices.ContainsFunc(s.Action, func(a string) bool {
			return like(strings.ToLower(a), strings.ToLower(action))
		})
		on := slices.ContainsFunc(s.Resource, func(r string) bool { return like(r, resource) })
		holds := true
		for operator, keys := range s.Condition {
			for key, want := range keys {
				ok, err := condition(operator, key, want, context)
				if err != nil {
					return "", err
				}
				holds = holds && ok
			}
		}
		switch {
		case !of || !on || !holds:
		case s.Effect == "Deny":
			return "explicitDeny", nil
		default:
			decision = "allowed"
		}
	}
	return decision, nil
}

func condition(operator, key string, want []string, context map[string]string) (bool, error) {
	have, given := "", false
	for k, v := range context {
		if strings.EqualFold(k, key) {
			have, given = v, true
		}
	}
	switch operator {
	case "Null":
		return slices.Contains(want, strconv.FormatBool(!given)), nil
	case "StringEquals", "Bool":
		return given && slices.Contains(want, have), nil
	case "StringLike":
		return given && slices.ContainsFunc(want, func(w string) bool { return like(w, have) }), nil
	}
	return false, fmt.Errorf("the condition %s is not known here", operator)
}

// simulate answers iam:SimulatePrincipalPolicy by the policy of the front.
func (f *Front) simulate(w http.ResponseWriter, form url.Values) {
	context := map[string]string{}
	list := func(name string, each func(prefix string)) {
		for i := 1; ; i++ {
			prefix := fmt.Sprintf("%s.member.%d", name, i)
			if !slices.ContainsFunc(mapKeys(form), func(k string) bool { return strings.HasPrefix(k, prefix) }) {
				return
			}
			each(prefix)
		}
	}
	list("ContextEntries", func(at string) {
		context[form.Get(at+".ContextKeyName")] = form.Get(at + ".ContextKeyValues.member.1")
	})
	type result struct {
		EvalActionName, EvalResourceName, EvalDecision string
	}
	var answer struct {
		XMLName xml.Name `xml:"SimulatePrincipalPolicyResponse"`
		Result  struct {
			IsTruncated       bool
			EvaluationResults struct {
				Member []result `xml:"member"`
			}
		} `xml:"SimulatePrincipalPolicyResult"`
	}
	resource := form.Get("ResourceArns.member.1")
	list("ActionNames", func(at string) {
		decision, err := decide(f.Policy, form.Get(at), resource, context)
		if err != nil {
			decision = err.Error()
		}
		answer.Result.EvaluationResults.Member = append(answer.Result.EvaluationResults.Member,
			result{form.Get(at), resource, decision})
	})
	w.Header().Set("Content-Type", "text/xml")
	_ = xml.NewEncoder(w).Encode(answer)
}

func mapKeys(form url.Values) (keys []string) {
	for k := range form {
		keys = append(keys, k)
	}
	return keys
}

// quota answers servicequotas:GetServiceQuota.
func (f *Front) quota(w http.ResponseWriter, body []byte) {
	var ask struct{ ServiceCode, QuotaCode string }
	_ = json.Unmarshal(body, &ask)
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	value, known := f.Quotas[ask.QuotaCode]
	if !known {
		w.Header().Set("X-Amzn-Errortype", "NoSuchResourceException")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"Message":"The specified resource does not exist."}`)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"Quota": map[string]any{"ServiceCode": ask.ServiceCode,
		"QuotaCode": ask.QuotaCode, "Value": value}})
}
