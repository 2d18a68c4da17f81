package redact

import "strings"

// homes are the domains of the vendors whose tokens have a prefix of their own. What is not listed has no home: its tokens are foreign everywhere.
var homes = []struct {
	prefixes []string
	domains  []string
}{
	{[]string{"sk_live_", "sk_test_", "rk_live_", "rk_test_", "whsec_"}, []string{"stripe.com"}},
	{[]string{"ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"}, []string{"github.com", "githubusercontent.com", "ghcr.io", "githubcopilot.com"}},
	{[]string{"glpat-", "gldt-", "glrt-", "glptt-", "glcbt-", "glft-", "glsoat-", "glagent-"}, []string{"gitlab.com"}},
	{[]string{"xoxa-", "xoxb-", "xoxc-", "xoxd-", "xoxe-", "xoxe.", "xoxp-", "xoxr-", "xoxs-", "xapp-"}, []string{"slack.com"}},
	{[]string{"AKIA", "ASIA", "ABIA", "ACCA", "amzn.mws."}, []string{"amazonaws.com", "amazonaws.com.cn", "amazon.com"}},
	{[]string{"AIza", "ya29.", "GOCSPX-"}, []string{"googleapis.com", "google.com"}},
	{[]string{"sk-ant-"}, []string{"anthropic.com"}},
	{[]string{"sk-proj-", "sk-svcacct-", "sk-admin-"}, []string{"openai.com"}},
	{[]string{"SG."}, []string{"sendgrid.com"}},
	{[]string{"SK", "AC"}, []string{"twilio.com"}},
	{[]string{"shpat_", "shpss_", "shpca_", "shppa_"}, []string{"myshopify.com", "shopify.com"}},
	{[]string{"dop_v1_", "doo_v1_", "dor_v1_"}, []string{"digitalocean.com"}},
	{[]string{"hf_"}, []string{"huggingface.co"}},
	{[]string{"gsk_"}, []string{"groq.com"}},
	{[]string{"xai-"}, []string{"x.ai"}},
	{[]string{"pplx-"}, []string{"perplexity.ai"}},
	{[]string{"r8_"}, []string{"replicate.com"}},
	{[]string{"sq0atp-", "sq0csp-", "EAAA"}, []string{"squareup.com", "squareupsandbox.com"}},
	{[]string{"EAACEdEose0cBA"}, []string{"facebook.com"}},
	{[]string{"key-"}, []string{"mailgun.net"}},
	{[]string{"xkeysib-"}, []string{"brevo.com", "sendinblue.com"}},
	{[]string{"ATATT3", "ATCTT3"}, []string{"atlassian.com", "atlassian.net", "bitbucket.org"}},
	{[]string{"lin_api_"}, []string{"linear.app"}},
	{[]string{"ntn_", "secret_"}, []string{"notion.com"}},
	{[]string{"sbp_", "sb_secret_"}, []string{"supabase.co", "supabase.com"}},
	{[]string{"access-production-", "access-sandbox-", "access-development-"}, []string{"plaid.com"}},
	{[]string{"rzp_live_"}, []string{"razorpay.com"}},
	{[]string{"pat-na1-", "pat-eu1-"}, []string{"hubapi.com", "hubspot.com"}},
}

// atHome tells whether a token is of the vendor whose host that is.
func atHome(token, host string) bool {
	if host == "" {
		return false
	}
	domains := domainsOf(token)
	for _, d := range domains {
		if host == d || strings.HasSuffix(host, d) && host[len(host)-len(d)-1] == '.' {
			return true
		}
	}
	return false
}

func domainsOf(token string) []string {
	for i := range homes {
		for _, p := range homes[i].prefixes {
			if strings.HasPrefix(token, p) {
				return homes[i].domains
			}
		}
	}
	return nil
}
