package trust

// runtimes are tried in this order. In args FILE is the path of source, URL the address to fetch. A program that lacks what it needs (a library,
// a compiler) exits with exitAbsent or prints one of absentSigns.
var runtimes = []runtimeProbe{
	{name: "curl", bin: "curl", args: []string{"-sS", "-o", "/dev/null", "--max-time", "20", "URL"}},
	{name: "wget", bin: "wget", args: []string{"-nv", "-O", "/dev/null", "--tries=1", "--timeout=20", "URL"},
		trustHint: "builds with GnuTLS read no variable: --ca-certificate=FILE, or ca_certificate in ~/.wgetrc"},
	{name: "git", bin: "git", args: []string{"ls-remote", "URL"}, tail: "/info/refs"},
	{name: "python urllib", bin: "python3", args: []string{"-c", `import sys,urllib.request
urllib.request.urlopen(sys.argv[1],timeout=20).read()`, "URL"}},
	{name: "python requests", bin: "python3", args: []string{"-c", `import sys
try: import requests
except ImportError: sys.exit(77)
requests.get(sys.argv[1],timeout=20)`, "URL"}},
	{name: "python httpx", bin: "python3", args: []string{"-c", `import sys
try: import httpx
except ImportError: sys.exit(77)
httpx.get(sys.argv[1],timeout=20)`, "URL"}},
	{name: "python aiohttp", bin: "python3", args: []string{"-c", `import asyncio,sys
try: import aiohttp
except ImportError: sys.exit(77)
async def go():
    async with aiohttp.ClientSession() as s, s.get(sys.argv[1]) as r: await r.read()
asyncio.run(go())`, "URL"}, proxyHint: "aiohttp looks at the variables only with ClientSession(trust_env=True)"},
	{name: "node fetch", bin: "node", args: []string{"-e",
		`if(typeof fetch!=="function")process.exit(77);fetch(process.argv[1]).then(r=>r.text()).catch(e=>{console.error(e.cause||e);process.exitCode=1})`, "URL"},
		proxyHint: nodeHint},
	{name: "node http", bin: "node", args: []string{"-e",
		`const u=process.argv[1];require(u.startsWith("https")?"https":"http").get(u,r=>r.resume()).on("error",e=>{console.error(e);process.exitCode=1})`, "URL"},
		proxyHint: nodeHint},
	{name: "deno", bin: "deno", file: "probe.js", source: `await (await fetch(Deno.args[0])).text();`, args: []string{"run", "-A", "FILE", "URL"}},
	{name: "java", bin: "java", file: "Probe.java", source: javaSource, args: []string{"FILE", "URL"},
		proxyHint: "only the virtual machines that read JAVA_TOOL_OPTIONS do; GraalVM native images want the -D options on their command line"},
	{name: "go", bin: "go", file: "probe.go", source: goSource, args: []string{"run", "FILE", "URL"},
		trustHint: "on macOS and Windows Go asks the system's store alone: add the CA there"},
	{name: "ruby", bin: "ruby", args: []string{"-rnet/http", "-e", `Net::HTTP.get(URI(ARGV[0]))`, "URL"}},
	{name: "php streams", bin: "php", args: []string{"-r", `if(@file_get_contents($argv[1])===false){fwrite(STDERR,error_get_last()["message"]);exit(1);}`, "URL"},
		proxyHint: `streams never look at variables: give them a context with "proxy" and "request_fulluri", or use the curl extension`,
		trustHint: "set openssl.cafile in php.ini"},
	{name: "php curl", bin: "php", args: []string{"-r", `if(!function_exists("curl_init"))exit(77);$c=curl_init($argv[1]);curl_setopt($c,CURLOPT_RETURNTRANSFER,true);
if(curl_exec($c)===false){fwrite(STDERR,curl_error($c));exit(1);}`, "URL"}, trustHint: "set curl.cainfo in php.ini"},
	{name: "perl LWP", bin: "perl", args: []string{"-e", `eval{require LWP::UserAgent;1} or exit 77;
my $r=LWP::UserAgent->new->get($ARGV[0]); if(!$r->is_success){print STDERR $r->status_line; exit 1}`, "URL"}},
	{name: "perl HTTP::Tiny", bin: "perl", args: []string{"-e", `eval{require HTTP::Tiny;1} or exit 77;
exit 77 if $ARGV[0]=~/^https/ && !eval{require IO::Socket::SSL;1};
my $r=HTTP::Tiny->new(verify_SSL=>1)->get($ARGV[0]); if(!$r->{success}){print STDERR $r->{content}; exit 1}`, "URL"}},
	{name: "dotnet", bin: "dotnet", file: "probe.fsx", source: dotnetSource, args: []string{"fsi", "--quiet", "FILE", "URL"}},
}

const nodeHint = "Node looks at the variables only with NODE_USE_ENV_PROXY=1 and from 22.21 or 24.5 on; give an older one a proxy agent"

// exitAbsent is the exit code of a program that could not try.
const exitAbsent = 77

// absentSigns in what a launcher prints mean that it is not able to run a program from its source.
var absentSigns = []string{"jdk.compiler", "Could not find or load main class", "No .NET SDKs were found", "could not find any SDK"}

const javaSource = `import java.net.URI;
import java.net.http.*;

public class Probe {
    public static void main(String[] args) throws Exception {
        HttpClient.newHttpClient().send(HttpRequest.newBuilder(URI.create(args[0])).build(), HttpResponse.BodyHandlers.ofString());
    }
}
`

const goSource = `package main

import (
	"fmt"
	"net/http"
	"os"
)

func main() {
	r, err := http.Get(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	r.Body.Close()
}
`

const dotnetSource = `let client = new System.Net.Http.HttpClient()
client.GetStringAsync(fsi.CommandLineArgs.[1]).Result |> ignore
`
