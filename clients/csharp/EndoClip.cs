// A patient's frames to an Endo-CLIP service, from .NET 6+ or Mono: the framework's own HttpClient, no package.
//   mcs -r:System.Net.Http.dll -r:System.Runtime.Serialization.dll EndoClip.cs && mono EndoClip.exe http://localhost:8000 a.jpg b.jpg
// Research use only; not a medical device.
using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Runtime.Serialization;
using System.Runtime.Serialization.Json;
using System.Text;
using System.Threading.Tasks;

namespace EndoClip
{
    /// <summary>What is read of an answer; members that are not named here are passed over.</summary>
    [DataContract]
    public sealed class Answer
    {
        [DataMember(Name = "request_id")] public string RequestId;
        [DataMember(Name = "intended_use")] public string IntendedUse;
        [DataMember(Name = "model")] public Model Model;
        [DataMember(Name = "patients")] public List<Patient> Patients;
    }

    [DataContract]
    public sealed class Model
    {
        [DataMember(Name = "name")] public string Name;
        [DataMember(Name = "digest")] public string Digest;
    }

    [DataContract]
    public sealed class Patient
    {
        [DataMember(Name = "status")] public string Status;
        [DataMember(Name = "decision")] public string Decision;
        [DataMember(Name = "probability")] public double? Probability;
        [DataMember(Name = "frames")] public List<Frame> Frames;
    }

    [DataContract]
    public sealed class Frame
    {
        [DataMember(Name = "frame_id")] public string FrameId;
        [DataMember(Name = "status")] public string Status;
        [DataMember(Name = "reason")] public string Reason;
        [DataMember(Name = "decision")] public string Decision;
        [DataMember(Name = "probability")] public double? Probability;
    }

    /// <summary>RFC 9457, as the service answers every error.</summary>
    [DataContract]
    public sealed class Problem
    {
        [DataMember(Name = "code")] public string Code;
        [DataMember(Name = "detail")] public string Detail;
        [DataMember(Name = "request_id")] public string RequestId;
    }

    /// <summary>The service said no, and asking again does not help.</summary>
    public sealed class RefusedException : Exception
    {
        public RefusedException(int status, Problem problem)
            : base($"{problem.Detail} [{status} {problem.Code}, request {problem.RequestId}]")
        {
            Status = status;
            Problem = problem;
        }

        public int Status { get; }
        public Problem Problem { get; }
    }

    public sealed class Client
    {
        private const int Attempts = 6;
        private static readonly TimeSpan Longest = TimeSpan.FromSeconds(120);
        private readonly HttpClient http;

        public Client(string url, string key = null)
        {
            // With a slash at its end and none before v1, a root below a path keeps that path.
            http = new HttpClient { BaseAddress = new Uri(url.TrimEnd('/') + "/"), Timeout = TimeSpan.FromSeconds(120) };
            if (key != null) http.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", key);
        }

        /// <summary>Scores one patient. Scoring changes nothing in the service, so a call is repeated when that can help.</summary>
        /// <param name="task">polyp-detection or malignancy.</param>
        /// <param name="frames">Image files in capture order.</param>
        /// <param name="options">The request's options as JSON.</param>
        public async Task<Answer> Score(string task, IReadOnlyList<byte[]> frames, string options = "{}")
        {
            var id = Guid.NewGuid().ToString("N"); // one for all attempts: the service's log shows them as one
            var waited = TimeSpan.Zero;
            for (var attempt = 1; ; attempt++)
            {
                TimeSpan wait;
                try
                {
                    using (var response = await http.SendAsync(Request(task, frames, options, id)))
                    {
                        var body = await response.Content.ReadAsByteArrayAsync();
                        var status = (int)response.StatusCode;
                        if (status == 200) return Read<Answer>(body);
                        wait = response.Headers.RetryAfter?.Delta ?? Pause(attempt);
                        var again = (status == 429 || status == 503) && attempt < Attempts && waited + wait <= Longest;
                        if (!again) throw new RefusedException(status, ProblemOf(response, body));
                    }
                }
                catch (HttpRequestException) when (attempt < Attempts)
                {
                    wait = Pause(attempt);
                }
                waited += wait;
                await Task.Delay(wait);
            }
        }

        private static HttpRequestMessage Request(string task, IReadOnlyList<byte[]> frames, string options, string id)
        {
            var form = new MultipartFormDataContent();
            form.Add(new StringContent(options, Encoding.UTF8, "application/json"), "request");
            // No name of a file leaves the machine: parts are numbered.
            for (var number = 0; number < frames.Count; number++)
                form.Add(new ByteArrayContent(frames[number]), "frames", number.ToString());
            var request = new HttpRequestMessage(HttpMethod.Post, "v1/" + task) { Content = form };
            request.Headers.Add("X-Request-ID", id);
            return request;
        }

        private static TimeSpan Pause(int attempt) => TimeSpan.FromMilliseconds(100 * Math.Pow(2, attempt));

        private static Problem ProblemOf(HttpResponseMessage response, byte[] body)
        {
            var isProblem = response.Content.Headers.ContentType?.MediaType == "application/problem+json";
            return isProblem ? Read<Problem>(body) : new Problem { Code = "", Detail = "a proxy answers" };
        }

        private static T Read<T>(byte[] body)
        {
            using (var stream = new MemoryStream(body))
                return (T)new DataContractJsonSerializer(typeof(T)).ReadObject(stream);
        }
    }

    internal static class Program
    {
        private static int Main(string[] arguments)
        {
            var client = new Client(arguments[0], Environment.GetEnvironmentVariable("ENDO_CLIP_KEY"));
            try
            {
                var answer = client.Score("polyp-detection", arguments.Skip(1).Select(File.ReadAllBytes).ToList()).Result;
                var patient = answer.Patients[0];
                Console.WriteLine(FormattableString.Invariant($"{patient.Decision} {patient.Probability:0.000} {answer.Model.Digest}"));
                foreach (var frame in patient.Frames)
                    Console.WriteLine(FormattableString.Invariant($"frame {frame.FrameId}: {frame.Status} {frame.Reason}{frame.Decision} {frame.Probability:0.000}"));
                Console.WriteLine(answer.IntendedUse);
                return 0;
            }
            catch (AggregateException error)
            {
                Console.Error.WriteLine(error.InnerException.Message);
                return 1;
            }
        }
    }
}
