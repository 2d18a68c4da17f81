import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;

/** GETURL POSTURL BODY with the JDK's HttpClient, which reads system properties: prints "STATUS BODY" for each answer. */
public final class Client {
    public static void main(String[] args) throws Exception {
        var body = HttpRequest.BodyPublishers.ofString(args[2], StandardCharsets.UTF_8);
        var requests = List.of(
                HttpRequest.newBuilder(URI.create(args[0])),
                HttpRequest.newBuilder(URI.create(args[1])).header("Content-Type", "application/json").POST(body));
        var client = HttpClient.newHttpClient();
        for (var request : requests) {
            var answer = client.send(request.timeout(Duration.ofSeconds(20)).build(), BodyHandlers.ofString());
            System.out.println(answer.statusCode() + " " + answer.body());
        }
    }
}
