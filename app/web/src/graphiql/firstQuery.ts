/** What the editor holds on a first visit: works on an empty server too. */
export const FIRST_QUERY = `# Audiences in PQL over profiles and events. Ctrl+Enter runs the query under the cursor;
# Ctrl+Space completes; the folder icon on the left builds a query by clicking.
# The headers x-gw-ims-org-id and x-sandbox-name (below, "Headers") choose the tenant.

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
