package compile

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/config"
)

// TestConditionNames: what the configuration is checked against is what expressions are judged by.
func TestConditionNames(t *testing.T) {
	texts := []string{"any(consumer.groups, # == \"x\")", "any(consumer.roles, # == \"x\")", "one(consumer.tags, lower(#) == upper(#))", "none(split(trim(path), \"/\"), # == \"x\")"}
	for _, name := range []string{"consumer.name", "consumer.user", "consumer.tier", "consumer.tenant", "consumer.key_id", "method", "path", "host", "ip", "scheme", `claim("x")`, `header("X")`} {
		texts = append(texts, name+` != "x"`, name+" matches \"^x\" or len("+name+") > 3")
	}
	for _, text := range texts {
		file := "listeners: { http: { bind: \":1\" } }\npolicies: { t: { jwt: { audience: a, keys: \"env:K\" } } }\n" +
			"routes: [{ match: /, use: [t, { access: { when: '" + text + "' } }], respond: {} }]\n"
		_, problems := config.Parse("sluice.yaml", []byte(file), config.Env{LookupEnv: func(string) (string, bool) { return "x", true }})
		if strings.Contains(fmt.Sprint(problems), "cannot understand") {
			t.Errorf("%s: %v", text, problems)
		}
		if _, err := core.NewCondition(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{"now() == now()", "consumer.x == 1", "repeat(path, 100000) == path", "path"} {
		if _, err := core.NewCondition(text); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
}
