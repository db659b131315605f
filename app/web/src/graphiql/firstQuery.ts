/** What the editor holds on a first visit: works on an empty server too. Lines are short: buttons stand beside them. */
export const FIRST_QUERY = `# Ctrl+Enter runs the query under the cursor,
# Ctrl+Space completes it, and PQL in texts.
# The star on the left has examples.

query FirstLook {
  viewer {
    organisation
    sandbox
  }
  segmentDefinitions(first: 10) {
    nodes {
      name
      segmentId
      audience {
        metrics {
          totalProfiles
        }
      }
    }
  }
}
`;

/** The tenant that is asked when nothing is said: to be changed rather than looked up. */
export const FIRST_HEADERS = `{
  "x-gw-ims-org-id": "default",
  "x-sandbox-name": "prod"
}
`;
