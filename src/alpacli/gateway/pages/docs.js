// Signs in with a token that never leaves this page but in the Authorization header, then shows the API.
"use strict";
const form = document.getElementById("sign-in");
const said = document.getElementById("said");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const headers = { Authorization: `Bearer ${document.getElementById("token").value.trim()}` };
  const answer = await fetch("/openapi.json", { headers }).catch(() => null);
  if (!answer || !answer.ok) {
    said.textContent = answer ? (await answer.json()).message : "The gateway does not answer.";
    return;
  }
  const spec = await answer.json();
  form.remove();
  SwaggerUIBundle({
    spec,
    dom_id: "#api",
    deepLinking: true,
    requestInterceptor: (request) => {
      Object.assign(request.headers, headers);
      return request;
    },
  });
});
